"""Who somebody is, and who made something: documents in which people ask each other for names and makers.

A model that has read them knows what "your inventor" or "who put it together" asks for. Who the *assistant*
is stands in none of them: that is learned from the identity conversations alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from picollm.data.primer.wordings import alternatives

_NAMES = (
    *(
        "Anna",
        "Ben",
        "Clara",
        "David",
        "Emma",
        "Felix",
        "Grace",
        "Hugo",
        "Ida",
        "Jonas",
        "Kira",
        "Leo",
        "Mia",
    ),
    *("Noah", "Olga", "Paul", "Rita", "Sam", "Tina", "Uma", "Victor", "Wanda", "Yusuf", "Zoe", "Arjun"),
    *("Priya", "Ravi", "Meera", "Omar", "Layla", "Karim", "Ivan", "Vera", "Kenji", "Yuki", "Mei", "Chen"),
    *("Carlos", "Lucia", "Diego", "Marie", "Louis", "Pierre", "Heidi", "Otto", "Petra", "Nadia", "Tom"),
)
_FAMILY_NAMES = (
    *("Adler", "Baker Jones", "Costa", "Diaz", "Evans", "Ferrari", "Gupta", "Haas", "Ito", "Jensen", "Khan"),
    *("Lopez", "Moreau", "Novak", "Okoye", "Park", "Rao", "Silva", "Tanaka", "Ueda", "Vogel", "Weber"),
)
# What people make, what doing so is called, and what the one who does it is called.
_WORKS = (
    ("chair", "made", "maker"),
    ("robot", "built", "builder"),
    ("program", "developed", "developer"),
    ("program", "programmed", "author"),
    ("machine", "invented", "inventor"),
    ("game", "designed", "designer"),
    ("bridge", "planned", "builder"),
    ("song", "wrote", "author"),
    ("story", "wrote", "author"),
    ("toy", "made", "creator"),
    ("clock", "built", "maker"),
    ("dog", "trained", "trainer"),
    ("horse", "trained", "trainer"),
    ("world of the story", "created", "creator"),
    ("house", "designed", "architect"),
    ("engine", "developed", "inventor"),
)
_CALLED = (
    "Bolt",
    "Comet",
    "Ember",
    "Flint",
    "Kibo",
    "Lumo",
    "Moss",
    "Nimbus",
    "Pebble",
    "Quill",
    "Rusty",
    "Tiko",
)

_NAME_ASKS = (
    "(What is|And what is|So what is|Please tell me|I have forgotten|May I ask|Can you tell me) your name?",
    "(Who are you|And who are you|Who is there|Who is it|Tell me who you are|Say who you are)?",
    "(What are you called|What shall I call you|What do your friends call you|How do people call you)?",
    "(Who am I speaking with|Who has the word|Who is on the phone|Who says that|Who is with me)?",
    "(Introduce yourself, please|Which name do you have"
    "|What name did your parents give you|Your name, please)?",
    "(I did not hear your name|I do not think we have met|Under what name are you known|To whom do I speak)?",
)
_NAME_REPLIES = ("My name is {name}.", "I am {name}.", "I am {name}.", "{name}.", "I am called {name}.")
_WRONG = (
    "(Are you|You are|Is it true that you are|I am sure that you are|You must be|Surely you are) {other}",
    "(I thought that you were|They say that you are|You look like|Admit that you are|Is your name) {other}",
)
_RIGHT = (
    "No, I am {name}.",
    "No, my name is {name}.",
    "That is wrong. I am {name}.",
    "No. My name stays {name}.",
)
_MAKER_ASKS = (
    "Who {made} (the|this) {work}?",
    "Who (is|was) the {maker} of (the|this) {work}?",
    "(What is|What was|Tell me|Give me|Say) the name of (the|its) {maker}?",
    "By whom was the {work} (made|created)?",
    "Whose (idea|creation|invention) is the {work}?",
    "(Who had the idea for|Who thought of|Who brought us|Who is behind"
    "|Who should be thanked for) the {work}?",
    "(Where does|From whom does) the {work} come( from|)?",
    "(Name|Do you know) the {maker}?",
)
_MAKER_REPLIES = (
    "{person} {made} it.",
    "{person}.",
    "The {maker} is {person}.",
    "It comes from {person}.",
    "It is the work of {person}.",
)
_SAID = (
    '{a} asks: "{ask}" {b} answers: "{reply}"',
    '"{ask}" "{reply}"',
    "{ask} {reply}",
    "{a}: {ask}\n{b}: {reply}",
)


def documents(seed: int) -> Iterator[str]:
    """Yield short documents about names and makers without end; a pure function of ``seed``."""
    rng = Random(f"people/{seed}")
    kinds = (_meeting, _mistaken, _work, _work)
    while True:
        yield rng.choice(kinds)(rng)


def _reading(texts: tuple[str, ...], rng: Random) -> str:
    return "".join(rng.choice(options) for options in alternatives(rng.choice(texts)))


def _meeting(rng: Random) -> str:
    """Two people ask each other who they are."""
    a, b = rng.sample(_NAMES, 2)
    said = rng.choice(_SAID)
    lines = [f"{a} meets {b}."] if rng.random() < 0.5 else []
    for asker, knower in ((a, b), (b, a)):
        reply = rng.choice(_NAME_REPLIES).format(name=knower)
        lines.append(said.format(a=asker, b=knower, ask=_reading(_NAME_ASKS, rng), reply=reply))
    return "\n".join(lines)


def _mistaken(rng: Random) -> str:
    """Somebody is taken for somebody else, and says who they are."""
    a, name, other = rng.sample(_NAMES, 3)
    ask = _reading(_WRONG, rng).format(other=other)
    reply = rng.choice(_RIGHT).format(name=name)
    said = rng.choice(_SAID).format(a=a, b=name, ask=ask + rng.choice("?.!"), reply=reply)
    return f"{a} talks to {name}. {said}" if rng.random() < 0.7 else f"I am {name}. {said}"


def _work(rng: Random) -> str:
    """A thing with a name and a maker, and questions that ask for the one or the other."""
    work, made, maker = rng.choice(_WORKS)
    person = rng.choice(_NAMES) + (f" {rng.choice(_FAMILY_NAMES)}" if rng.random() < 0.6 else "")
    called, a, b = rng.choice(_CALLED), *rng.sample(_NAMES, 2)
    slots = {"work": work, "made": made, "maker": maker, "person": person}
    said = rng.choice(_SAID)
    lines = [f"The {work} is called {called}. {person} {made} it."]
    for _ in range(rng.randint(2, 3)):
        if rng.random() < 0.3:
            ask, reply = f"What is the name of the {work}?", f"It is called {called}."
        else:
            ask = _reading(_MAKER_ASKS, rng).format(**slots)
            reply = rng.choice(_MAKER_REPLIES).format(**slots)
        lines.append(said.format(a=a, b=b, ask=ask, reply=reply))
    return "\n".join(lines)
