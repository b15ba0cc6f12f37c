"""Which language a text is in: by its script, and within a script by its small words and special letters.

The published checker asks the ``langdetect`` package, which compares letter sequences with profiles of 55
languages. The 30 languages that IFEval asks for (and their near relatives, to be told apart) are recognized
here from what a person looks at first.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

_ASKED_FOR = "ar bg bn de en es fa fi fr gu he hi it ja kn ko ml mr ne pa pl pt ru sw ta te th uk ur vi"
ASKED_FOR = frozenset(_ASKED_FOR.split())
UNKNOWN = "und"

# The first word of a letter's Unicode name is its script.
_ONLY_LANGUAGE_OF = {
    "BENGALI": "bn",
    "GREEK": "el",
    "GUJARATI": "gu",
    "GURMUKHI": "pa",
    "HANGUL": "ko",
    "HEBREW": "he",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "CJK": "zh",
    "KANNADA": "kn",
    "MALAYALAM": "ml",
    "TAMIL": "ta",
    "TELUGU": "te",
    "THAI": "th",
}
_SMALL_WORDS = {
    "LATIN": {
        "en": "the of and to in is that it was for on are with as his they at be this from have or by "
        "not but what all were we when your can said there an each which she do how their if will "
        "up other about out many then them these so some her would him into has more my you he i "
        "me our who no",
        "de": "der die das und ist nicht ein eine zu den mit sich von auf für dem im des auch es er sie "
        "ich wir ihr als wie aber oder wenn nach bei aus um am sind war hat noch nur über dass "
        "kann haben werden einen",
        "fr": "de le la les des et est un une que qui dans pour pas sur au avec ce il elle ne se vous "
        "nous je du par plus sont ou mais son ses aux cette être ont était leur comme tout fait",
        "es": "de el la los las y es un una que en por para con no se su del al lo como más pero sus le "
        "ya este sí porque esta entre cuando muy sin sobre también me hasta hay donde quien desde "
        "todo nos ser son está",
        "pt": "de o os as e é um uma que em por para com não se seu do da dos das no na nos nas ao mais "
        "mas foi ele ela você como também isso são sua ou quando muito já eu só pelo pela até "
        "isto está ser tem",
        "it": "il lo la gli le e è un una che di in per con non si del della dei delle al alla nel "
        "nella da sono ma come più anche questo questa suo ha ho io lui mi ti ci perché quando "
        "essere nei ai dal",
        "pl": "i w na z nie się jest to że do o jak ale po co tak za od jego przez dla są był czy tylko "
        "tym być może ich oraz lub ma już ten ta te która który które gdy bardzo też mnie",
        "fi": "ja on ei se että hän oli mutta kun niin ovat olla myös ne sen joka tai kuin mitä minä "
        "sinä he me jos vain nyt hänen ole ollut tämä mikä siitä sitä voi kaikki sekä jotka",
        "sw": "na ya wa kwa ni katika la za cha kuwa hii yake huo kama lakini pia au hiyo watu wote "
        "sana yao hivyo ambayo ambao baada wakati bila yangu wewe mimi sisi yeye wao hakuna kila "
        "moja kutoka hapo huku ili si",
        "vi": "là và của có không được trong cho một các này với những người khi đã đến từ để cũng như "
        "về ra thì tôi bạn anh chúng nhiều nhưng trên hay rất phải sẽ làm đó ông vào",
        "nl": "de het een en van is dat niet te zijn op met voor die aan er ook als maar om hij bij uit "
        "wat nog naar ze wij door over heeft worden kan hebben deze was ik je",
        "sv": "och att det som en på är av för med den till inte har de ett om var jag men så från han "
        "hon kan när ska vara eller också vi mig sig",
        "da": "og at det som en på er af for med den til ikke har de et om var jeg men så fra han hun "
        "kan når skal være eller også vi mig sig blev efter",
        "id": "yang dan di itu dengan untuk tidak ini dari dalam akan pada juga ke saya kamu adalah "
        "karena ada mereka kita oleh atau bisa sudah telah orang seperti",
        "tl": "ang ng sa mga na at ay ako ka siya hindi ito kung para kayo niya ni si nang may pa ko mo "
        "namin kanyang isang upang",
        "tr": "ve bir bu da de için ile çok ne ama gibi daha olarak var o ben sen biz olan değil kadar "
        "her sonra mi ki en",
        "ro": "de și să nu este în la cu pe un o care mai din că pentru sunt ce dar lui fi era au ca "
        "sau ei se prin după",
        "cs": "a je se na že v to s z do o ale jako by za pro jsem tak si jsou bylo není nebo být když co už",
        "hu": "a az és hogy nem is egy ez volt meg de mint csak el már még van ha vagy ki mert minden azt",
        "ca": "de el la els les i és un una que en per amb no es del al com més però seu seva també "
        "aquest aquesta són ha dels",
        "hr": "i je u da se na su za ne od koji što kao nije bi sam to s ili ako ali o će iz biti",
        "so": "iyo oo ka ku waa ee ay in uu la si ayaa waxaa leh aan ma waxay soo inuu",
        "af": "die en van is het nie in wat te dat hy met vir sy om op as was aan sal ek jy ons by",
    },
    "CYRILLIC": {
        "ru": "и в не на что с он как это по но из у за то все так его бы от о же к вы мы я она они мне "
        "если для было только есть когда уже или",
        "uk": "і в не на що з він як це по але із у за то все так його би від про же до ви ми я вона "
        "вони мені якщо для було тільки є коли вже або та й",
        "bg": "и в не на че с той как това по но от у за то всички така го би да се са е ще ви ние аз "
        "тя те ми ако беше само има когато вече или със",
        "mk": "и во не на дека со тој како ова по но од за сите така го би да се ќе вие ние јас таа тие "
        "ако беше",
    },
    "ARABIC": {
        "ar": "في من على أن إلى هذا هذه التي الذي عن مع كان لا ما هو هي كل لم قد أو ثم إن بعد قال ذلك "
        "عند بين و",
        "fa": "و در به از که این را با است آن برای یک خود تا بر هم نیز می شود کرد بود شد ها باید دارد "
        "اگر هر اما من ما شما",
        "ur": "کے میں کی ہے اور سے کا کو اس نے پر ہیں کہ یہ جو تھا بھی نہیں وہ ایک کر ہو گیا تھے ان کیا "
        "لیے ہم آپ",
    },
    "DEVANAGARI": {
        "hi": "के में की है और से का को इस ने पर हैं कि यह जो था भी नहीं वह एक कर हो गया थे उन क्या लिए हम आप तो",
        "mr": "आणि आहे या तो ते ती व हे की मध्ये नाही होते आहेत केली केला एक हा ही च्या साठी मी तू आम्ही पण जे त्या तर करून",
        "ne": "र छ को मा ले यो हो छन् पनि गर्न भने लागि त्यो एक हुन् थियो नै गरेको हुने तर म हामी तपाईं का लाई बाट",
    },
}
_SPECIAL_LETTERS = {
    "uk": "іїєґ",
    "bg": "ъщ",
    "ru": "ыэё",
    "ur": "ٹڈڑںےھہ",
    "fa": "پچژگ",
    "ar": "ةىؤئ",
    "mr": "ळ",
    "pl": "łąęśźż",
    "vi": "đươăạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ",
    "pt": "ãõ",
    "es": "ñ¿¡",
    "de": "ß",
    "tr": "ğış",
    "ro": "țșă",
    "cs": "ěřů",
    "hu": "őű",
}
# Where a language writes its small words onto the ends of others.
_ENDINGS = {
    "mr": ("च्या", "ाचा", "ाची", "ाचे", "ांना", "ून", "ांनी", "ास"),
    "ne": ("को", "का", "की", "ले", "लाई", "मा", "हरू", "छ", "ने"),
}
_VOWEL_SIGNS = re.compile("[\u064b-\u0652]")  # written in Arabic for learners only
_WORDS = re.compile(r"[^\W\d_]+(?:[\u0300-\u036f\u0900-\u0903\u093a-\u094f]+[^\W\d_]*)*")


def detect_language(text: str) -> str | None:
    """Return the code of the language of ``text`` (ISO 639-1, or ``UNKNOWN``); None without letters.

    >>> detect_language("Where is the station?"), detect_language("¿Dónde está la estación?")
    ('en', 'es')
    >>> detect_language("駅はどこですか"), detect_language("3 + 4")
    ('ja', None)
    """
    text = _VOWEL_SIGNS.sub("", unicodedata.normalize("NFC", text.lower()))
    letters = Counter(character for character in text if character.isalpha())
    scripts: Counter[str] = Counter()
    for letter, num in letters.items():
        scripts[unicodedata.name(letter, "NONE").split()[0]] += num
    if not scripts:
        return None
    if scripts["HIRAGANA"] + scripts["KATAKANA"] > scripts["CJK"] / 10:
        scripts["HIRAGANA"] += scripts.pop("CJK", 0)
    script = scripts.most_common(1)[0][0]
    if script not in _SMALL_WORDS:
        return _ONLY_LANGUAGE_OF.get(script, UNKNOWN)
    return _by_words(script, text, letters)


def _by_words(script: str, text: str, letters: Counter[str]) -> str:
    """Return the language whose small words and letters are most of ``text``; without any, the first one."""
    words = Counter(_WORDS.findall(text))
    total = sum(words.values()) or 1
    scores = {}
    for language, small in _SMALL_WORDS[script].items():
        share = sum(words[word] for word in small.split()) / total
        if language in _ENDINGS:
            share += sum(num for word, num in words.items() if word.endswith(_ENDINGS[language])) / total / 2
        special = sum(letters[letter] for letter in _SPECIAL_LETTERS.get(language, "")) / letters.total()
        scores[language] = share + 5 * special
    return max(scores, key=scores.__getitem__)
