/** A request as a command for a shell, and as a program for OpenAI's Python package. Pure. */
import { whole } from "./requests.js";

/**
 * Returns `value` as JSON in ASCII, indented: characters that could reorder or hide what one pastes are escapes.
 *
 * JSON's escapes are Python's, too, except for pairs of surrogates.
 */
function ascii(value, escape) {
  return JSON.stringify(value, null, 2).replace(/[^\x00-\x7e]/gu, escape);
}

const jsonEscape = (character) =>
  [...Array(character.length).keys()].map((at) => `\\u${hex(character.charCodeAt(at), 4)}`).join("");
const pythonEscape = (character) => {
  const point = character.codePointAt(0);
  return point > 0xffff ? `\\U${hex(point, 8)}` : `\\u${hex(point, 4)}`;
};
const hex = (number, digits) => number.toString(16).padStart(digits, "0");

/** Returns a curl command for a POSIX shell; the key is the shell's $WINNOW_API_KEY, never the one in the page. */
export function curl(body, url, hasKey) {
  const quoted = ascii(whole(body), jsonEscape).replaceAll("'", "'\\''");
  const key = hasKey ? ` \\\n  -H "Authorization: Bearer $WINNOW_API_KEY"` : "";
  return `curl -s '${url}' \\\n  -H 'Content-Type: application/json'${key} \\\n  -d '${quoted}'\n`;
}

/** Returns a Python program that sends the request with the package openai. */
export function python(body, url, hasKey) {
  const { best_of_n: options, ...rest } = whole(body);
  const fields = Object.entries({ ...rest, extra_body: { best_of_n: options } });
  const lines = fields.map(([name, value]) => `    ${name}=${literal(value).replaceAll("\n", "\n    ")},`);
  const key = hasKey ? 'os.environ["WINNOW_API_KEY"]' : '"none"';
  return [
    ...(hasKey ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${literal(url.replace(/\/chat\/completions$/, ""))}, api_key=${key})`,
    "answer = client.chat.completions.create(",
    ...lines,
    ")",
    "print(answer.choices[0].message.content)",
    'for candidate in sorted(answer.best_of_n["scored"], key=lambda scored: scored["rank"]):',
    '    print(candidate["index"], candidate["safety"], candidate["helpfulness"], candidate["combined"])',
    "",
  ].join("\n");
}

/** Returns a JSON value as a Python literal; words inside strings stay as they are. */
function literal(value) {
  const names = { true: "True", false: "False", null: "None" };
  const words = /"(?:[^"\\]|\\.)*"|\b(?:true|false|null)\b/g;
  return ascii(value, pythonEscape).replace(words, (part) => names[part] ?? part);
}
