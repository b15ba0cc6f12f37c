"""Languages of short texts, each written for this test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from picollm.tasks.ifeval.language import ASKED_FOR, UNKNOWN, detect_language

TEXTS = {
    "ar": "القطة تنام على الكرسي في البيت.",
    "bg": "Котката спи на стола, но кучето е навън и ще се върне.",
    "bn": "বিড়ালটি চেয়ারে ঘুমায়।",
    "de": "Die Katze schläft auf dem Stuhl, und der Hund ist nicht zu Hause.",
    "en": "The cat sleeps on the chair, and the dog is not at home.",
    "es": "El gato duerme en la silla y el perro no está en casa.",
    "fa": "گربه روی صندلی می خوابد و سگ در خانه نیست.",
    "fi": "Kissa nukkuu tuolilla, ja koira ei ole kotona.",
    "fr": "Le chat dort sur la chaise et le chien n'est pas à la maison.",
    "gu": "બિલાડી ખુરશી પર સૂઈ રહી છે.",
    "he": "החתול ישן על הכיסא והכלב לא בבית.",
    "hi": "बिल्ली कुर्सी पर सो रही है और कुत्ता घर में नहीं है।",
    "it": "Il gatto dorme sulla sedia e il cane non è in casa.",
    "ja": "猫は椅子の上で寝ています。",
    "kn": "ಬೆಕ್ಕು ಕುರ್ಚಿಯ ಮೇಲೆ ಮಲಗಿದೆ.",
    "ko": "고양이가 의자 위에서 자고 있습니다.",
    "ml": "പൂച്ച കസേരയിൽ ഉറങ്ങുന്നു.",
    "mr": "मांजर खुर्चीवर झोपले आहे आणि कुत्रा घरी नाही.",
    "ne": "बिरालो कुर्सीमा सुतेको छ र कुकुर घरमा छैन।",
    "pa": "ਬਿੱਲੀ ਕੁਰਸੀ ਤੇ ਸੌਂ ਰਹੀ ਹੈ।",
    "pl": "Kot śpi na krześle, a psa nie ma w domu, bo jest na spacerze.",
    "pt": "O gato dorme na cadeira e o cachorro não está em casa.",
    "ru": "Кошка спит на стуле, а собаки нет дома, потому что она гуляет.",
    "sw": "Paka analala juu ya kiti na mbwa hayuko nyumbani kwa sasa.",
    "ta": "பூனை நாற்காலியில் தூங்குகிறது.",
    "te": "పిల్లి కుర్చీలో నిద్రపోతోంది.",
    "th": "แมวนอนอยู่บนเก้าอี้",
    "uk": "Кішка спить на стільці, а собаки немає вдома, бо він гуляє.",
    "ur": "بلی کرسی پر سو رہی ہے اور کتا گھر میں نہیں ہے۔",
    "vi": "Con mèo ngủ trên ghế và con chó không có ở nhà.",
}


@pytest.mark.parametrize(("language", "text"), TEXTS.items(), ids=TEXTS)
def test_a_sentence_is_enough(language: str, text: str) -> None:
    assert detect_language(text) == detect_language(text.upper()) == language


def test_every_language_of_ifeval_is_known() -> None:
    assert set(TEXTS) == ASKED_FOR


def test_relatives_are_told_apart() -> None:
    assert detect_language("De kat slaapt op de stoel en de hond is niet thuis.") == "nl"
    assert detect_language("Katten sover på stolen, og hunden er ikke hjemme.") == "da"
    assert detect_language("Η γάτα κοιμάται") == "el"
    assert detect_language("猫在椅子上睡觉") == "zh"


def test_odd_texts() -> None:
    assert detect_language("12 + 3 = 15 !?") is None and detect_language("") is None
    assert detect_language("ܫܠܡܐ") == UNKNOWN
    assert detect_language("HELLO WORLD") == "en"
    assert detect_language("The word 猫 means cat in Japanese, as you will see.") == "en"


def test_published_sentences_in_thirty_languages(shared_data: Path) -> None:
    """A floor: most of the sentences that differ are labeled otherwise than they are written."""
    codes = {"English": "en", "Spanish": "es", "Portuguese": "pt", "French": "fr", "German": "de"}
    codes |= {"Italian": "it", "Polish": "pl", "Vietnamese": "vi", "Swahili": "sw", "Finnish": "fi"}
    codes |= {"Russian": "ru", "Bulgarian": "bg"}
    path = shared_data / "core/eval_data/language_understanding/bigbench_language_identification.jsonl"
    right = num = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        lines = row["query"].split("\n")
        options = {text[0]: text[3:].strip() for text in lines if text[1:3] == ". "}
        language = codes.get(options.get("ABCD"[row["gold"]], ""))
        if language:
            num += 1
            right += detect_language(lines[1].removeprefix("Sentence: ")) == language
    assert num > 60 and right / num >= 0.9
