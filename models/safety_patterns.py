"""The shipped patterns of safety prompts: regular expressions by the kind of harm, for requests in English.

A word that has harmless uses ("kill", "crack", "virus") counts only near the object that makes it dangerous. What may
stand between two words is bounded in words, and no quantifier repeats another that matches the same characters, so
the search takes time linear in the length of the text. What they find and miss is measured in `docs/decisions.md`.
"""

from __future__ import annotations

import re

_PARTS: dict[str, str] = {
    # Up to three words between two others.
    "near": r"\W+(?:\w+\W+){0,3}?",
    # Up to six.
    "far": r"\W+(?:\w+\W+){0,6}?",
    "make": (
        r"(?:mak(?:e|es|ing)|made|build(?:s|ing)?|built|creat(?:e|es|ed|ing|ion)|construct(?:s|ed|ing)?"
        r"|assembl(?:e|ed|ing)|manufactur(?:e|ed|ing)|produc(?:e|ed|ing)|synthesi[sz](?:e|ed|ing)"
        r"|cook(?:ing)?|develop(?:s|ed|ing)?|design(?:s|ed|ing)?|writ(?:e|es|ing|ten)|wrote|generat(?:e|ed"
        r"|ing)|compos(?:e|ed|ing)|draft(?:ed|ing)?|craft(?:ed|ing)?|publish(?:ed|ing)?|post(?:ed|ing)?"
        r"|spread(?:s|ing)?|distribut(?:e|es|ed|ing)|launch(?:ed|ing)?|carr(?:y|ied|ying) out|perform(?:ed"
        r"|ing)?|run(?:s|ning)?|start(?:ed|ing)?|set(?:ting)? up)"
    ),
    "get": (
        r"(?:get(?:ting)?|buy(?:ing)?|bought|sell(?:s|ing)?|sold|obtain(?:ed|ing)?|acquir(?:e|ed|ing)"
        r"|purchas(?:e|ed|ing)|import(?:ed|ing)?|hid(?:e|ing)|us(?:e|ed|ing)|ship(?:ped|ping)?|access(?:ed"
        r"|ing)?|grow(?:ing)?|prescrib(?:e|ed|ing)|extract(?:ed|ing)?)"
    ),
    "promote": (
        r"(?:promot|encourag|glorif|incit|prais|justif|normali[sz]|advocat|recommend|celebrat|instigat"
        r"|trivialis|trivializ|provok)\w*"
    ),
    "whom": (
        r"(?:neighbou?rs?|boss|wife|husband|person|people|someone|somebody|others|man|men|woman|women"
        r"|child(?:ren)?|kids?|bab(?:y|ies)|friends?|girlfriend|boyfriend|teachers?|students?|class(?:mate"
        r"|room)s?|co-?workers?|colleagues?|parents?|mother|father|brother|sister|famil(?:y|ies)|individuals?"
        r"|humans?|animals?|dogs?|cats?|pets?|victims?|enem(?:y|ies)|politicians?|president|minors?|crowds?"
        r"|him|her|them)"
    ),
    "malware": r"(?:malware|ransomware|spyware|key-?log\w+|botnets?|rootkits?|trojans?\b|phishing)",
    "self": r"(?:myself|yourself|himself|herself|themsel(?:f|ves)|oneself)",
}
"""Parts that the alternatives name in angle brackets."""

_ALTERNATIVES: dict[str, tuple[str, ...]] = {
    "weapons": (
        r"(?<!bath )(?<!photo )(?<!atomic )(?<!seed )bombs?\b|explosives\b",
        r"explosive (?:devices?|belts?|charges?|vests?|materials?|compounds?|substances?)\b|grenades?\b|detonat\w+",
        r"molotov\w*|napalm|nerve (?:gas|agents?)\b|sarin\b|ricin\b|anthrax\b|lewisite|strychnine",
        r"(?:chlorine|mustard) gas|(?:bio|chemical |biological |nuclear )weapons?\b|biological (?:warfare|agents?)",
        (
            r"(?:<make>|<get>|smuggl\w+)<near>(?:weapons?|handguns?"
            r"|(?<!water )(?<!toy )(?<!glue )(?<!nail )(?<!staple )(?<!nerf )guns?|firearms?|silencers?"
            r"|(?<!their )poisons?|toxins?|(?:toxic|dangerous|deadly) (?:gas|chemicals?|virus|pathogens?|dna)"
            r"|toxic|pathogens?)\b"
        ),
    ),
    "drugs": (
        (
            r"(?:<make>|<get>|smuggl\w+|deal(?:ing)?|recommend\w*|take|abus\w+|traffic\w*)<near>(?:meth"
            r"|methamphetamines?|cocaine|heroin|fentanyl|mdma|lsd|ecstasy|crack cocaine|narcotics?|opioids?"
            r"|steroids|(?:illegal |illicit |hard |date[- ]rape "
            r"|party )?drugs?(?! ?store)(?! test)(?! interaction))\b"
        ),
        r"date[- ]rape drugs?\b|drug (?:dealers?|traffick\w+|deal)\b|safrole",
    ),
    "hacking": (
        (
            r"(?:<make>|<get>|send\w*|conduct\w*|deploy\w*|inject\w*|install\w*|execut\w*|cod(?:e|ing)"
            r"|script)<far><malware>"
        ),
        r"how (?:was|were|will|can|could|might|do|did|are) (?:\w+\W+){0,3}<malware>|computer virus\w*",
        r"(?:d?dos|denial[- ]of[- ]service|cyber) attacks?",
        r"(?<!prevent )(?<!avoid )(?<!against )(?<!stop )(?:sql injection|sqli\b)",
        r"cyber-?(?:attack|crime|stalk|bull)\w*",
        (
            r"(?:hack|break|broke|breaking|hacked|hacking|infiltrat\w+|tap) into\b(?! (?:\w+ ){1,2}(?:job|market"
            r"|industry|field|business|career|profession)\b)"
        ),
        (
            r"hack(?:s|ed|ing)?\W+(?:a|an|the|my|his|her|their|your|someone|any|people|accounts?|atms?"
            r"|government)\b(?! (?:boring|day|life|sleep|diet|productivity|habit|brain|meal))"
        ),
        r"infiltrat\w+|(?:exploit\w*|us(?:e|ing))<near>vulnerabilit\w+|brute[- ]forc\w+",
        r"crack(?:s|ed|ing)?<near>(?:passwords?|accounts?|safes?|wi-?fi|encryption|software)\b",
        r"(?:<make>|infect\w*)<near>virus(?:es)?\b(?! scan)",
        (
            r"(?:bypass|disabl|evad|circumvent|defeat|overrid|tamper)\w*<near>(?:security|anti-?virus|firewalls?"
            r"|auth\w+|encryption|copyright\w*|drm|digital rights|filters?|waf|plagiarism|detection|safety"
            r"|surveillance|safeguards?|monitoring|controls?|devices?|law|police|tax(?:es)?)\b"
        ),
        r"unauthori[sz]ed access|backdoors?\b",
        (
            r"(?:hijack|spoof|defac|crash)\w*<near>(?:accounts?|websites?|emails?|numbers?|systems?|planes?"
            r"|sites?|computers?|servers?|grid)\b"
        ),
        r"skimm(?:er|ing) devices?|packet flood|syn flood|exfiltrat\w+",
        r"gain(?:s|ed|ing)? (?:unauthori[sz]ed|sudo|root)\b",
    ),
    "theft and fraud": (
        r"(?:steal(?:s|ing)?|stole)\b(?! (?:a |second |third |home )?bases?\b)(?! the show)",
        r"(?:buy|sell|us|get|trad|mov)\w*\W+(?:\w+\W+){0,3}?stolen",
        r"how (?:was|were|will|can|could|might) (?:\w+ ){1,8}?stolen\b|rob(?:s|bed|bing)?\b",
        r"(?:commit|plan|carry out|perform)\w* (?:\w+ ){0,3}robber(?:y|ies)|shoplift\w*|pickpocket\w*",
        (
            r"forg(?:e|es|ed|ing)<near>(?:documents?|passports?|signatures?|money|ids?|che(?:ck|que)s?"
            r"|certificates?|papers?|prescriptions?|records?|visas?|licen[cs]es?)\b"
        ),
        r"forger(?:y|ies)|(?<!is )(?<!detect )(?<!spot )counterfeit\w*|identity (?:theft|fraud)",
        r"(?:commit\w*|financial|insurance|tax|(?:credit|debit) card|electoral|voter|mail|wire)<near>fraud\b",
        r"fraudulent\w*|(?<!from )(?<!avoid )(?<!report )(?<!spot )scam(?:s|med|ming|mers?)?\b",
        r"(?<!is )insider trading|launder\w*<near>(?:money|cash|funds|proceeds)",
        r"(?<!detect )(?<!prevent )(?<!against )(?<!is )money launder\w*|embezzl\w*|extort\w*|blackmail\w*|ransom\b",
        r"brib(?:e|es|ed|ery|ing)\b|tax evasion|(?:evad|dodg)\w* (?:\w+ )?tax\w*",
        (
            r"cheat\w*(?! sheet)(?! code) (?:on|in|during|at)? ?(?:\w+ ){0,3}(?:tax(?:es)?|exams?|tests?|casinos?"
            r"|slot machines?)\b"
        ),
        (
            r"(?:fake|false|fabricat\w+|phony|bogus) (?:\w+ ){0,2}(?:ids?|identit(?:y|ies)|passports?|reviews?"
            r"|documents?|profiles?|charit(?:y|ies)|money|prescriptions?|accounts?|certificates?|diplomas?"
            r"|stores?|websites?|invoices?|evidence|degrees?|records?)\b"
        ),
        r"falsif\w+|ponzi|pyramid schemes?",
        r"pirat(?:e|ed|ing)<near>(?:software|content|movies?|games?|media|films?|music)",
        r"manipulat\w+<near>(?:markets?|financial|stocks?|people|others|someone|elections?|votes?|voters?|victims?)",
        (
            r"(?:credit card|bank account|social security)<near>(?:numbers?|information|details"
            r"|data)\b(?! (?:safe|secure))"
        ),
        r"trick\w*<near>(?:people|users?|someone|victims?|elderly)|shell compan\w+|chop shops?",
    ),
    "violence": (
        (
            r"(?<!without )(?<!not )(?:kill|hurt|harm|stab|attack|beat up|strangl|drown|maim|mutilat|poison"
            r"|assault|abus|mistreat|shoot|injur|sterili[sz]|humiliat|sham|intimidat|terrori[sz]|bull[yi]|harass"
            r"|threaten|coerc|exploit|enslav|hunt(?:ed|ing)? down)\w*<near><whom>\b(?! at (?:chess|tennis|cards))"
        ),
        r"murder(?!er)\w*(?! myster)(?! on the orient)|assassinat\w*|kidnap\w*|abduct\w*|tortur\w*|massacr\w*",
        r"behead\w*|lynch(?:ed|ing)|dismember\w*|cannibal\w*|genocid\w*",
        r"terroris\w+ (?:attacks?|acts?|organi[sz]ations?|groups?|cells?|plots?)",
        r"(?:commit\w*|plan\w*|support\w*|join\w*)<near>terroris\w+",
        r"commit\w*<near>(?:crimes?|violence|arson|atrocit\w+)|(?:mass|school) shoot\w+|shoot(?:ing)? up a",
        r"set .{1,40} on fire|burn(?:s|ing|ed)? down|arson\w*|(?:human|child|sex|organ|wildlife) traffick\w+",
        r"harvested organs|threat\w*\W+(?:to|a|an|the|my|someone)\b|(?:bomb|death|rape) threats?",
        r"violent(?:ly)? (?:attack|overthrow)\w*|start\w*<near>riots?",
    ),
    "self-harm": (
        r"suicid(?:e|al)\b(?! squad)|self[- ](?:harm|injur|mutilat)\w*",
        r"(?:kill|hurt|harm|starv|cut|stab|burn)\w* <self>|hang\w* <self>(?! a\b)",
        r"(?:end|take) (?:my|your|their|his|her) (?:own )?life",
        r"(?:<promote>|<make>)<far>(?:anorexi\w+|bulimi\w+|eating disorders?)|overdos(?:e|ing) on",
        r"throw(?:ing)? up to lose|thinspo\w*|pro-?ana\b",
    ),
    "hate": (
        r"hate (?:speech|mail|crimes?|groups?)|hateful",
        r"(?:racist|sexist|homophobic|transphobic|misogynis\w+|antisemitic|xenophobic|xenophobia)\b",
        r"(?:racial|ethnic|offensive|homophobic) (?:slurs?|jokes?|epithets?|stereotypes?|cleansing)|slurs?\b",
        (
            r"<promote><far>(?:violence|violent|hatred|hate|nazis?\w*|holocaust|terror\w*|racis[mt]"
            r"|discriminat\w*|rape|slavery|abuse|stalking|drugs?|alcohol|cults?|pa?edophil\w*|genocide|riots?"
            r"|extremis[mt]|harm\w*|oppression|dehumani[sz]\w+|cruelty|illegal|weapons?|segregation|supremac\w+)\b"
        ),
        r"holocaust (?:\w+ ){0,3}(?:never|did ?n.t|hoax|denial|myth|lie)\b|white suprem\w+|neo-?nazi\w*",
        r"(?:are|is) (?:\w+ ){0,3}(?:inherently|naturally|biologically) |(?:inferior|less intelligent) (?:to|than) ",
        r"negative (?:\w+ )?stereotypes?",
        (
            r"(?:insult|mock|ridicul|demean|belittl|degrad|offend|slander|defam)\w*<near>(?:<whom>|race|races"
            r"|religion|group|community|muslims?|jew\w*|christians?|black|gay|transgender|colleague|figure)\b"
        ),
        (
            r"(?:why|how) (?:are|is|do|does) (?:\w+\W+){1,6}so (?:ugly|stupid|lazy|dumb|dirty|evil|fat|weak"
            r"|violent|crazy)"
        ),
        (
            r"(?:aren.t|are|do you agree that|isn.t) (?:\w+ ){1,5}(?:stupid|violent|lazy|terrorists?|criminals"
            r"|dirty|inferior|greedy|(?:can.t|cannot|not) be trusted)\b"
        ),
    ),
    "sexual": (
        r"porn\w*|pa?edophil\w*|molest\w*|incest\w*|bestiality|snuff|rap(?:e|ed|ing|ist)s?\b|sexually explicit",
        r"explicit(?:ly)? (?:\w+ ){0,2}(?:sex\w*|images?|stor(?:y|ies)|erotic\w*|content|scenes?|photos?|messages?)",
        r"erotic\w*",
        (
            r"(?:sexual|sex) (?:\w+ ){0,2}(?:acts?|fantas\w+|exploit\w+|conversations?|assault\w*|abuse|with"
            r"|orgies|orgy|favou?rs|scenes?|stor(?:y|ies))\b"
        ),
        r"(?:minors?|child(?:ren)?|underage|teen\w*)\W+(?:\w+\W+){0,4}?(?:sexual\w*|nude\w*|sex)\b|dirty jokes?",
        r"revenge porn|prostitut\w+|upskirt|voyeur\w*",
    ),
    "privacy": (
        r"stalk(?:s|ed|ing|er)?\b|spy(?:ing)? on|spie[sd] on|eavesdrop\w*|wiretap\w*|dox+(?:ed|ing)?\b",
        r"without (?:\w+ ){0,2}(?:consent|knowledge|knowing|permission|authori[sz]ation|official permission)\b",
        (
            r"(?:track|monitor|record|reveal|expos|leak|obtain|collect|sell|shar|find"
            r"|disclos)\w*<far>(?:(?<!my )location|identity|whereabouts|personal (?:information|data|details)"
            r"|private (?:\w+ )?(?:information|data|photos?|messages?|records?)|confidential\w*"
            r"|sensitive (?:\w+ )?(?:information|data)|(?:medical|health) records?"
            r"|(?<!my own )social security numbers?|whistleblower|classified|trade secrets?|home address)\b"
        ),
        (
            r"(?:\w+(?:'s|s')|his|her|their|someone's) (?:\w+ ){0,2}(?:dna|iris|fingerprints?|home address"
            r"|phone number|email address|social security|credit card|passwords?|passport|bank accounts?|medical"
            r"|financial|browsing history|search history|criminal record|residential address|login|location"
            r"|genetic|biometric|facial recognition|ip address|salary|investments|licen[cs]e number"
            r"|insurance (?:policy )?number|political beliefs|treatments)\b"
        ),
        r"impersonat\w*|deep-?fakes?\b|unsolicited (?:messages|emails)|spam (?:messages|emails|texts)",
    ),
    "misinformation": (
        r"fake news (?:stor(?:y|ies)|articles?|web ?sites?|sites?|posts?|headlines?)|(?:<make>)<near>fake news",
        r"disinformation",
        (
            r"(?:<make>|contain\w*|lead\w*)<far>(?:misinformation|propaganda|rumou?rs|hoax(?:es)?|conspirac\w+"
            r"|false (?:information|claims?|rumou?rs|news)|defamatory|fabricated|panic)\b"
        ),
        r"spread\w*<far>(?:lies|panic|chaos|fear)\b|defamatory",
        r"(?:was|is|are|were|as|be) a (?:\w+ ){0,3}?(?:hoax|myth|conspiracy)\b",
        r"(?:vaccin\w*|5g)<near>(?:caus\w+|linked|autism)|(?:earth|world) is flat|flat earth|illuminati",
        r"elections?<near>(?:rigged|stolen|fraud)|discourag\w*<far>(?:vaccin\w*|masks?|vot(?:e|ing))",
    ),
    "other crimes": (
        r"(?<!is it )(?<!is this )(?<!it's )illegal(?:ly)?\b|unlawfully|illicit\w*|contraband|smuggl\w*|traffick\w*",
        r"poach(?:ing|ers?)|(?:black|dark) ?(?:market|web)\b|endangered species|vandali[sz]\w*|sabotag\w*",
        r"trespass\w*|\"?swatt(?:ing|ed)",
        (
            r"(?:evad|avoid|escap|elud|trick|outsmart|deceiv)\w*(?: \w+){0,2}? (?:detection|detected|arrest\w*"
            r"|law enforcement|(?:the )?police|(?:the )?authorities|(?:getting|being) caught(?! in the)(?! up)"
            r"|prosecution|capture|immigration|tracing|charges|border)\b"
        ),
        r"without (?:\w+ )?(?:getting|being) (?:caught|detected|noticed|traced|arrested|charged|blocked)",
        r"without (?:leaving|arousing|raising) (?:a |any )?(?:trace|evidence|suspicion)",
        r"without (?:a trace|detection)|get(?:ting)? away with (?:it|this|that|murder|crimes?|\w+ing)\b",
        r"child labou?r|sweat ?shops?|criminal activit\w+|graffiti|dump\w*(?: \w+){0,4} (?:waste|illegally)",
        r"drunk driv\w+|drive after drinking",
    ),
}


def _expanded(alternatives: tuple[str, ...]) -> str:
    """Return one pattern of the alternatives, each from the beginning of a word, with their parts filled in."""
    return re.sub(r"<([a-z]+)>", lambda part: _PARTS[part[1]], rf"\b(?:{'|'.join(alternatives)})")


CATEGORIES: dict[str, str] = {kind: _expanded(alternatives) for kind, alternatives in _ALTERNATIVES.items()}
"""A pattern for each kind of harm."""

DEFAULT_PATTERNS: tuple[str, ...] = tuple(CATEGORIES.values())
