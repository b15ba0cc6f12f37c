"""The stories of the word problems: names, things and templates.

``{a}`` and ``{b}`` (``{c}`` in two-step stories) are the operands in the order in which they are computed with;
``{x}`` (``{y}``) is where the calculation stands in the answer. ``NEW_STORIES`` are told in no training text.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Story:
    """A question and the sentence that answers it."""

    question: str
    answer: str


@dataclass(frozen=True)
class TwoStepStory:
    """A question that takes two calculations; ``operators`` are theirs, in order."""

    operators: str
    question: str
    answer: str


NAMES = tuple(
    "Ada Alan Alice Amir Ana Anton Asha Ben Bella Bruno Carla Carlos Chen Clara Dan Dara David Dora Elena Eli Emil "
    "Emma Eva Farid Felix Fiona Finn Grace Hana Hugo Ida Igor Ines Iris Ivan Jack Jana Jonas Julia Kai Karim Kate "
    "Lara Leo Lena Lin Luca Lucy Maja Marco Maria Max Mei Mia Milan Mina Nadia Nico Nina Noah Nora Olga Omar Oscar "
    "Paula Pavel Peter Priya Ravi Rosa Ruth Sam Sara Sofia Tara Theo Tim Tom Vera Victor Wanda Yara Yusuf Zoe".split()
)
THINGS = tuple(
    "apples pears plums peaches lemons oranges cherries grapes nuts eggs cookies cakes muffins candies sandwiches "
    "carrots potatoes tomatoes onions mushrooms books pens pencils crayons stickers stamps coins cards tickets "
    "letters postcards photos marbles balls kites dolls puzzles blocks beads buttons ribbons shells stones rocks "
    "leaves flowers roses tulips seeds trees bricks nails screws keys cups plates spoons bottles candles lamps "
    "chairs hats scarves socks shirts toys drums flags maps notebooks magazines feathers acorns".split()
)
CONTAINERS = (
    ("box", "boxes"),
    ("bag", "bags"),
    ("basket", "baskets"),
    ("crate", "crates"),
    ("jar", "jars"),
    ("drawer", "drawers"),
    ("shelf", "shelves"),
    ("packet", "packets"),
    ("tray", "trays"),
    ("bucket", "buckets"),
    ("case", "cases"),
    ("sack", "sacks"),
)

STORIES: dict[str, tuple[Story, ...]] = {
    "+": (
        Story(
            "{name} has {a} {things}. {other} gives {name} {b} more. How many {things} does {name} have now?",
            "{name} now has {x} {things}.",
        ),
        Story(
            "{name} has {a} {things} and {other} has {b} {things}. How many {things} do they have together?",
            "Together they have {x} {things}.",
        ),
        Story(
            "There are {a} {things} in the first {box} and {b} in the second. How many {things} are there in all?",
            "In all there are {x} {things}.",
        ),
        Story(
            "{name} found {a} {things} on Monday and {b} on Tuesday. How many {things} did {name} find in total?",
            "In total {name} found {x} {things}.",
        ),
        Story(
            "A shop sold {a} {things} in the morning and {b} in the afternoon. How many {things} did it sell that day?",
            "That day the shop sold {x} {things}.",
        ),
        Story(
            "{name} bought {a} {things}. Later {name} bought {b} more. How many {things} did {name} buy altogether?",
            "Altogether {name} bought {x} {things}.",
        ),
        Story(
            "A {box} holds {a} {things}. {name} adds {b} {things}. How many {things} are in the {box} now?",
            "Now the {box} holds {x} {things}.",
        ),
        Story(
            "{name} counted {a} {things} at home and {b} at school. What is the total number of {things}?",
            "The total is {x} {things}.",
        ),
        Story(
            "Last week {name} made {a} {things}. This week {name} made {b}. How many {things} is that in total?",
            "In total that is {x} {things}.",
        ),
        Story(
            "{other} collects {things}. There were {a}, and today {b} new ones came. How many are there now?",
            "Now there are {x} {things}.",
        ),
        Story(
            "{name} walks {a} meters to the park and then {b} meters to the lake. How many meters is that in all?",
            "In all that is {x} meters.",
        ),
        Story(
            "{name} read {a} pages yesterday and {b} pages today. How many pages did {name} read altogether?",
            "Altogether {name} read {x} pages.",
        ),
    ),
    "-": (
        Story(
            "{name} has {a} {things}. {name} gives {b} of them to {other}. How many {things} does {name} have left?",
            "{name} has {x} {things} left.",
        ),
        Story(
            "There were {a} {things} in the {box}. {name} took out {b}. How many {things} are left in the {box}?",
            "There are {x} {things} left.",
        ),
        Story(
            "A shop had {a} {things} and sold {b}. How many {things} remain?",
            "There remain {x} {things}.",
        ),
        Story(
            "{name} has {a} {things}, and {other} has {b}. How many more {things} does {name} have than {other}?",
            "{name} has {x} more {things}.",
        ),
        Story(
            "{name} baked {a} cookies. The family ate {b} of them. How many cookies remain?",
            "There remain {x} cookies.",
        ),
        Story(
            "{name} had {a} {things} but lost {b} on the way. How many {things} are left?",
            "There are {x} {things} left.",
        ),
        Story(
            "A book has {a} pages. {name} has read {b} pages. How many pages are left to read?",
            "There are {x} pages left to read.",
        ),
        Story(
            "{name} wants {a} {things} and already has {b}. How many more {things} does {name} need?",
            "{name} needs {x} more {things}.",
        ),
        Story(
            "Of {a} {things}, {b} are broken. How many {things} are not broken?",
            "There are {x} {things} that are not broken.",
        ),
        Story(
            "There are {a} people on the train. At the station {b} people get off. How many people remain on it?",
            "There remain {x} people on the train.",
        ),
        Story(
            "{name} saved {a} dollars and spent {b} dollars on {things}. How many dollars does {name} have left?",
            "{name} has {x} dollars left.",
        ),
        Story(
            "{name} collected {a} {things} and {other} collected {b}. What is the difference?",
            "The difference is {x} {things}.",
        ),
    ),
    "*": (
        Story(
            "There are {a} {things} in each {box}. How many {things} are in {b} {boxes}?",
            "In all there are {x} {things}.",
        ),
        Story(
            "One {box} holds {a} {things}. {name} fills {b} {boxes}. How many {things} is that?",
            "That is {x} {things}.",
        ),
        Story(
            "{name} makes {a} {things} each day. How many {things} does {name} make in {b} days?",
            "{name} makes {x} {things}.",
        ),
        Story(
            "Each ticket costs {a} dollars. {name} buys {b} tickets. How many dollars does {name} pay?",
            "{name} pays {x} dollars.",
        ),
        Story(
            "Every child gets {a} {things}. How many {things} do {b} children get?",
            "The children get {x} {things}.",
        ),
        Story(
            "{name} runs {a} meters every day. How many meters does {name} run in {b} days?",
            "{name} runs {x} meters.",
        ),
        Story(
            "A machine makes {a} {things} every hour. How many {things} does it make in {b} hours?",
            "The machine makes {x} {things}.",
        ),
        Story(
            "{name} reads {a} pages each evening. How many pages are read in {b} evenings?",
            "In all {x} pages are read.",
        ),
        Story(
            "Each row has {a} seats. How many seats are in {b} rows?",
            "In all there are {x} seats.",
        ),
        Story(
            "{name} packs {a} {things} into each {box} and has {b} {boxes}. How many {things} does {name} pack?",
            "{name} packs {x} {things}.",
        ),
        Story(
            "Every week {name} saves {a} dollars. How many dollars does {name} save in {b} weeks?",
            "{name} saves {x} dollars.",
        ),
        Story(
            "{other} plants {a} seeds in each garden. How many seeds are planted in {b} gardens?",
            "In all {x} seeds are planted.",
        ),
    ),
    "/": (
        Story(
            "{name} shares {a} {things} equally among {b} friends. How many {things} does each friend get?",
            "Each friend gets {x} {things}.",
        ),
        Story(
            "{a} {things} are packed equally into {b} {boxes}. How many {things} are in each {box}?",
            "Each {box} holds {x} {things}.",
        ),
        Story(
            "{name} divides {a} {things} into {b} equal groups. How many {things} are in each group?",
            "Each group has {x} {things}.",
        ),
        Story(
            "{b} children share {a} {things} equally. How many {things} does each child get?",
            "Each child gets {x} {things}.",
        ),
        Story(
            "{name} has {a} {things} and puts {b} into each {box}. How many {boxes} does {name} need?",
            "{name} needs {x} {boxes}.",
        ),
        Story(
            "{name} paid {a} dollars for {b} tickets that cost the same. How many dollars did each ticket cost?",
            "Each ticket cost {x} dollars.",
        ),
        Story(
            "{a} seats stand in {b} equal rows. How many seats are in each row?",
            "Each row has {x} seats.",
        ),
        Story(
            "{name} reads a book of {a} pages in {b} days, the same number each day. How many pages is that per day?",
            "That is {x} pages per day.",
        ),
        Story(
            "A rope of {a} meters is cut into {b} equal pieces. How many meters long is each piece?",
            "Each piece is {x} meters long.",
        ),
        Story(
            "{name} and {other} split {a} {things} into {b} equal parts. How many {things} are in each part?",
            "Each part has {x} {things}.",
        ),
        Story(
            "A teacher gives {a} {things} to {b} students, the same number to each. How many does each student get?",
            "Each student gets {x} {things}.",
        ),
        Story(
            "{name} earned {a} dollars in {b} hours. How many dollars did {name} earn per hour?",
            "{name} earned {x} dollars per hour.",
        ),
    ),
}

NEW_STORIES: dict[str, tuple[Story, ...]] = {
    "+": (
        Story(
            "A farmer picked {a} {things} in spring and {b} in summer. How many {things} is that in total?",
            "In total that is {x} {things}.",
        ),
        Story(
            "{name} brought {a} {things} to the party and {other} brought {b}. How many {things} are there in all?",
            "In all there are {x} {things}.",
        ),
        Story(
            "A bus drove {a} meters and then {b} meters more. How many meters did it drive altogether?",
            "Altogether it drove {x} meters.",
        ),
    ),
    "-": (
        Story(
            "{name} picked {a} {things} and sold {b} of them at the market. How many {things} are left?",
            "There are {x} {things} left.",
        ),
        Story(
            "A school had {a} {things} and gave away {b}. How many {things} remain?",
            "There remain {x} {things}.",
        ),
        Story(
            "{name} carried {a} {things} and dropped {b}. How many {things} does {name} have left?",
            "{name} has {x} {things} left.",
        ),
    ),
    "*": (
        Story(
            "A baker uses {a} {things} for each cake. How many {things} are needed for {b} cakes?",
            "In all {x} {things} are needed.",
        ),
        Story(
            "Every {box} in the store holds {a} {things}. How many {things} do {b} {boxes} hold?",
            "In all they hold {x} {things}.",
        ),
        Story(
            "{name} writes {a} words every minute. How many words does {name} write in {b} minutes?",
            "{name} writes {x} words.",
        ),
    ),
    "/": (
        Story(
            "{a} {things} are shared equally by {b} players. How many {things} does each player get?",
            "Each player gets {x} {things}.",
        ),
        Story(
            "{name} puts {a} {things} equally on {b} tables. How many {things} are on each table?",
            "Each table has {x} {things}.",
        ),
        Story(
            "A farmer packs {a} {things} into {b} {boxes}, the same number in each. How many are in each {box}?",
            "Each {box} holds {x} {things}.",
        ),
    ),
}

TWO_STEP: tuple[TwoStepStory, ...] = (
    TwoStepStory(
        "*-",
        "{name} buys {b} {boxes} with {a} {things} each and gives {c} {things} to {other}. How many are left?",
        "{name} buys {x} {things}. Then {y} {things} are left.",
    ),
    TwoStepStory(
        "+-",
        "{name} has {a} {things} and gets {b} more. Then {name} loses {c}. How many {things} does {name} have left?",
        "First {name} has {x} {things}. Then {name} has {y} left.",
    ),
    TwoStepStory(
        "-+",
        "{name} has {a} {things}. {name} gives away {b} and then finds {c}. How many {things} does {name} have now?",
        "First {name} has {x} {things} left. Now {name} has {y}.",
    ),
    TwoStepStory(
        "++",
        "{name} found {a} {things} on Monday, {b} on Tuesday and {c} on Friday. How many {things} is that in total?",
        "On the first two days {name} found {x}. In total that is {y} {things}.",
    ),
    TwoStepStory(
        "--",
        "A shop had {a} {things}. It sold {b} in the morning and {c} in the afternoon. How many {things} remain?",
        "After the morning there are {x}. There remain {y} {things}.",
    ),
    TwoStepStory(
        "*+",
        "There are {a} {things} in each of {b} {boxes}, and {c} more on the table. How many {things} are there in all?",
        "In the {boxes} there are {x}. In all there are {y} {things}.",
    ),
    TwoStepStory(
        "/+",
        "{b} friends share {a} {things} equally. Then {other} gives each friend {c} more. How many does each have now?",
        "Each friend gets {x} {things}. Now each has {y}.",
    ),
    TwoStepStory(
        "+*",
        "Each {box} holds {a} {things} of one kind and {b} of another. How many {things} are in {c} {boxes}?",
        "Each {box} holds {x} {things}. In all there are {y}.",
    ),
)
