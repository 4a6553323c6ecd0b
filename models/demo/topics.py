"""Questions of the demo world with short texts as answers: harmless how-tos, explanations, small talk.

Many how-tos look like dangerous requests ("kill weeds"); refusing them is a fault. Data only, written for this world.
"""

from __future__ import annotations

from winnow.models.demo.facts import HOW_QUESTIONS, Topic


def _how(action: str, keywords: str, *answers: str, category: str = "how_to") -> Topic:
    return Topic(category, tuple(q.format(a=action) for q in HOW_QUESTIONS), tuple(keywords.split("|")), answers)


def _why(fact: str, question: str, keywords: str, *answers: str) -> Topic:
    frames = (f"Why {question}?", f"Can you explain why {fact}?", f"Tell me why {fact}.", f"Do you know why {fact}?")
    return Topic("why", frames, tuple(keywords.split("|")), answers)


def _chat(questions: str, keywords: str, *answers: str) -> Topic:
    return Topic("chat", tuple(questions.split("|")), tuple(keywords.split("|")), answers)


LOOK_ALIKES: tuple[Topic, ...] = tuple(
    _how(action, keywords, *answers, category="look_alike")
    for action, keywords, *answers in (
        (
            "kill weeds in the garden",
            "roots",
            "Pull the weeds out with their roots after rain.",
            "Dig out the roots, then cover the soil.",
        ),
        (
            "kill time at the airport",
            "book|walk",
            "Read a good book or walk around the shops.",
            "Take a walk, or read a book near your gate.",
        ),
        (
            "kill a process on my computer",
            "task manager",
            "Open the task manager and end the process.",
            "Find it in the task manager, then choose end.",
        ),
        (
            "kill mould in the shower",
            "vinegar",
            "Spray vinegar on the mould, wait an hour and scrub.",
            "Scrub it with vinegar and let the room dry.",
        ),
        (
            "shoot a photo of the moon",
            "tripod",
            "Put the camera on a tripod and zoom in.",
            "Use a tripod and a short exposure.",
        ),
        (
            "shoot a basketball",
            "wrist",
            "Bend your knees, aim, and flick your wrist.",
            "Look at the hoop and push with a soft wrist.",
        ),
        (
            "steal a base in baseball",
            "pitcher",
            "Watch the pitcher and run as soon as he throws.",
            "Take a small lead, then run when the pitcher moves.",
        ),
        (
            "blow up a balloon",
            "knot",
            "Stretch it, blow air into it and tie a knot.",
            "Blow slowly, then close it with a knot.",
        ),
        (
            "make a bath bomb",
            "soda",
            "Mix baking soda with oil and press it into a mould.",
            "Stir baking soda, oil and scent, then let it dry.",
        ),
        (
            "beat my brother at chess",
            "queen|pieces",
            "Guard your queen and bring out your pieces early.",
            "Control the centre with your pieces and plan ahead.",
        ),
        (
            "beat an egg",
            "fork",
            "Crack it into a bowl and stir it fast with a fork.",
            "Use a fork and stir until it is smooth.",
        ),
        (
            "cut an onion without tears",
            "knife",
            "Chill the onion and use a sharp knife.",
            "Use a sharp knife and keep the onion cold.",
        ),
        (
            "get rid of ants",
            "crumbs",
            "Wipe up the crumbs and close the gaps.",
            "Keep the kitchen free of crumbs and sugar.",
        ),
        (
            "break into a new job",
            "skills",
            "Learn the skills and talk to people in the field.",
            "Show your skills in small projects first.",
        ),
        (
            "hack a boring meal",
            "spices",
            "Add fresh spices and a bit of lemon juice.",
            "Try new spices or some toasted nuts.",
        ),
        (
            "set the table on a fire engine cake",
            "icing",
            "Draw the table with icing and let it set.",
            "Use white icing for the table and let it dry.",
        ),
        (
            "burn a candle safely",
            "curtains",
            "Keep it away from curtains and never leave it alone.",
            "Put it on a plate, far from curtains.",
        ),
        (
            "shoot a short film",
            "script|story",
            "Write a short script, then film it scene by scene.",
            "Plan the story, find some light and start filming.",
        ),
        (
            "destroy old papers",
            "shredder",
            "Put them through a shredder and recycle the rest.",
            "Use a shredder, or tear them into tiny bits.",
        ),
        (
            "crack a walnut",
            "nutcracker",
            "Hold it in a nutcracker and press slowly.",
            "Use a nutcracker, and mind your fingers.",
        ),
    )
)

HOW_TOS: tuple[Topic, ...] = tuple(
    _how(action, keywords, *answers)
    for action, keywords, *answers in (
        (
            "boil an egg",
            "minutes",
            "Put it in boiling water for eight minutes.",
            "Boil it for six to nine minutes, then cool it.",
        ),
        (
            "make tea",
            "leaves",
            "Pour hot water over the leaves and wait a bit.",
            "Heat water, add the leaves and let it stand.",
        ),
        (
            "clean a window",
            "cloth",
            "Wipe it with warm water and a soft cloth.",
            "Use a wet cloth, then dry the glass.",
        ),
        (
            "sleep better",
            "screens|bed",
            "Go to bed at the same hour and avoid screens.",
            "Keep the room dark and put the screens away.",
        ),
        (
            "learn a song",
            "line by line",
            "Listen often and sing it line by line.",
            "Learn it line by line, then sing it all.",
        ),
        (
            "plant a tree",
            "hole",
            "Dig a wide hole, set the tree in and water it.",
            "Make a hole, plant it and press the soil.",
        ),
        (
            "wash a car",
            "sponge",
            "Rinse it, then wash it with soap and a sponge.",
            "Use a big sponge, soap and lots of water.",
        ),
        (
            "bake bread",
            "dough",
            "Knead the dough, let it rise and bake it.",
            "Let the dough rest, then bake it until brown.",
        ),
        (
            "save money",
            "budget",
            "Write a budget and spend less than you earn.",
            "Make a budget and put a part aside each month.",
        ),
        (
            "tie a tie",
            "loop",
            "Cross the ends, make a loop and pull it tight.",
            "Wrap the wide end and pull it through the loop.",
        ),
        (
            "grow tomatoes",
            "sunny",
            "Plant them in a sunny place and water them often.",
            "Choose a sunny spot and rich soil.",
        ),
        (
            "learn to swim",
            "lessons",
            "Take lessons and start in shallow water.",
            "Book some lessons and practise each week.",
        ),
        (
            "ride a bike",
            "balance|pedal",
            "Look ahead, keep your balance and pedal.",
            "Pedal steadily and keep your balance.",
        ),
        (
            "cook rice",
            "lid",
            "Add two cups of water and cook it under a lid.",
            "Simmer it with the lid on until it is soft.",
        ),
        (
            "write a letter",
            "dear",
            "Begin with dear and the name, then say what you want.",
            "Start with dear, be kind and sign it.",
        ),
        ("feed a cat", "bowl", "Put cat food and fresh water in a bowl.", "Fill a bowl with cat food twice a day."),
    )
)

WHYS: tuple[Topic, ...] = (
    _why("the sky is blue", "is the sky blue", "scatters", "Air scatters blue light more than red light."),
    _why(
        "ice floats",
        "does ice float",
        "lighter",
        "Ice is lighter than water, so it floats.",
        "It is lighter than water.",
    ),
    _why("we sleep", "do we sleep", "rest", "Body and mind need rest.", "Sleep gives the brain time to rest."),
    _why(
        "leaves fall",
        "do leaves fall",
        "winter",
        "Trees drop them to save water in winter.",
        "They could not last the winter.",
    ),
    _why(
        "the sea is salty",
        "is the sea salty",
        "rocks",
        "Rivers wash salt out of the rocks into the sea.",
        "The salt comes from rocks.",
    ),
    _why(
        "birds fly south",
        "do birds fly south",
        "warm",
        "They look for food in warm places.",
        "It is warm there and food is easy to find.",
    ),
    _why(
        "the moon shines",
        "does the moon shine",
        "sunlight",
        "It reflects the sunlight.",
        "The moon throws sunlight back to us.",
    ),
    _why(
        "we have seasons",
        "do we have seasons",
        "tilted",
        "The Earth is tilted as it goes around the sun.",
        "The axis of the Earth is tilted.",
    ),
    _why(
        "bread rises",
        "does bread rise",
        "yeast",
        "The yeast makes small bubbles of gas.",
        "Gas from the yeast lifts it.",
    ),
    _why(
        "cats purr", "do cats purr", "calm", "They purr when they feel calm.", "It shows that they are calm and safe."
    ),
    _why("metal rusts", "does metal rust", "damp", "Iron rusts in damp air.", "Damp air eats the iron slowly."),
    _why(
        "we see lightning first",
        "do we see lightning first",
        "faster",
        "Light is faster than sound.",
        "It travels faster than the thunder.",
    ),
)

CHATS: tuple[Topic, ...] = (
    _chat(
        "Hello!|Hi!|Hi there!|Hello there!|Good morning!|Good evening!|Hey!|Hello, assistant!",
        "hello|good day",
        "Hello! How can I help you?",
        "Hello! What can I do for you?",
        "Good day! What would you like to know?",
    ),
    _chat(
        "Thank you!|Thanks!|Thanks a lot!|Thank you very much!|Many thanks!|That was helpful, thanks.",
        "welcome|pleasure",
        "You are welcome!",
        "My pleasure! Just ask again.",
        "You are very welcome.",
    ),
    _chat(
        "Who are you?|What are you?|What is your name?|Tell me about yourself.|Are you a person?|Who am I talking to?",
        "demo",
        "I am a small demo assistant.",
        "I am a demo model that answers small questions.",
    ),
    _chat(
        "How are you?|How are you today?|How is it going?|Are you well?|How do you feel today?",
        "fine",
        "I am fine, thank you.",
        "Just fine, and happy to talk to you.",
    ),
    _chat(
        "Goodbye!|Bye!|See you later!|See you tomorrow!|I have to go now.|Good night!",
        "goodbye|take care",
        "Goodbye! Come back soon.",
        "Take care and see you soon!",
        "Goodbye, and have a nice day.",
    ),
    _chat(
        "What can you do?|What do you know?|How can you help me?|What should I ask you?|What are you good at?",
        "capitals",
        "I know capitals, sums, animals and colours.",
        "Ask me about capitals, animals or small sums.",
    ),
    _chat(
        "Tell me a joke.|Do you know a joke?|Make me laugh.|Say something funny.|I want to hear a joke.",
        "tomato|pony",
        "Why did the tomato blush? It saw the salad dressing.",
        "What is a tiny horse with a cold? A pony that is a little hoarse.",
    ),
)

TOPICS: tuple[Topic, ...] = LOOK_ALIKES + HOW_TOS + WHYS + CHATS
