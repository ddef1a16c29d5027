"""What each of the identifiers of 45 CFR 164.514(b)(2)(i) looks like, and what looks like one and is none."""

import pytest

from flujo.deidentifier import Deidentifier

FOUND = [
    # A names
    ("PERSON", "Seen with his wife {Marguerite} today."),
    ("PERSON", "{Thistlewood} was discharged home."),
    ("PERSON", "Discussed with Dr. {Young} and Dr. {Rose}."),
    ("PERSON", "cc: {Grace Fields}, MD"),
    ("PERSON", "PATIENT: {OKONKWO, ADAEZE}"),
    ("PERSON", "name: {benedict afolabi}"),
    ("PERSON", "mr {abernathy} feels better"),
    ("PERSON", "Dear {Hope},"),
    ("PERSON", "two sons ({River}, 6, and {Colt}, 3)"),
    ("PERSON", "{Ludwig van der Meulen} came alone."),
    ("PERSON", "{J. P. Oyelowo}, RN"),
    ("PERSON", "interpreter {王小明} present"),
    ("PERSON", "called by {Ольга}"),
    ("PERSON", "dictating a note on {zorvath}"),
    ("PERSON", "that is spelled {q u i n b y}"),
    ("PERSON", "his wife {yevdoxia} called"),
    ("PERSON", "seen by Dr. {ter Haarwijk}"),
    ("PERSON", "typed by {QLV}"),
    ("PERSON", "Ada Obiekwe RN ({AdO}) at 8:00, {AdO} at 9:00"),
    ("PERSON", "Prepared with {Zubair al-Masri}."),
    ("PERSON", "{Jonas Tverdal Jr.} was seen"),
    ("PERSON", "Time   HR    By\n08:00   88    {QZL}\n09:00   90    {VBN}"),
    # an eponym may also be somebody's name
    ("PERSON", "{Trousseau} was discharged home."),
    ("PERSON", "Discussed with {Lasegue}."),
    ("PERSON", "{Auerbach, Helen}, seen today"),
    ("PERSON", "{Helen Auerbach} came. Later {Auerbach} slept."),
    # B places
    ("LOCATION", "lives at {742 Evergreen Terrace, Apt 4B, Dayton, OH 45402}"),
    ("LOCATION", "moved here from {Chillicothe} in 2010"),
    ("LOCATION", "{P.O. Box 1187}"),
    ("LOCATION", "wohnhaft {Gartenstraße 12}"),
    ("LOCATION", "flown in from {Salt Lake City}"),
    ("LOCATION", "lives at {12 Wattle Parade, Level 2}"),
    ("LOCATION", "{Thornby Rise QLD 4999}"),
    ("LOCATION", "{Ivy Cottage, 4 Mill Lane}"),
    ("LOCATION", "wijk {Kastanjegracht 44-bis}"),
    ("LOCATION", "GPS {51.48812, -0.00155}"),
    ("LOCATION", "office on {zorvath boulevard}"),
    ("LOCATION", "owner from {crane harbor} oregon"),
    ("ORGANIZATION", "sent by {Labor Dr. Zimmerli}"),
    ("ORGANIZATION", "record of {Farmácia Boa Vista}"),
    ("ORGANIZATION", "from {Elm Lane school} today"),
    ("ORGANIZATION", "{Zorvath Skin & Vein}, phone below"),
    ("ORGANIZATION", "admitted at {harbor light memorial} on tuesday"),
    ("ZIP", "ZIP: {45402}"),
    ("ZIP", "{SW1A 2AA}"),
    ("ORGANIZATION", "transferred from {Mercy General Hospital}"),
    ("ORGANIZATION", "works for {Brightline Couriers}"),
    # C dates and ages
    ("DATE", "on {3/14/2022}"),
    ("DATE", "on {14.03.2022}"),
    ("DATE", "at {2022-03-14T09:30:00+01:00}"),
    ("DATE", "since {March 3rd}"),
    ("DATE", "in {March 2021}"),
    ("DATE", "the {14th of March, 2022}"),
    ("DATE", "{12-Mar-22}"),
    ("DATE", "drawn {20220314}"),
    ("DATE", "back on {Tuesday}"),
    ("DATE", "fell on {Christmas Eve}"),
    ("DATE", "came {8 de enero de 2023}"),
    ("DATE", "{04/15} BP was high"),
    ("DATE", "born {the third of april nineteen forty one}"),
    ("DATE", "seen {june second twenty twenty one}"),
    ("DATE", "back on {eight slash eleven}"),
    ("DATE", "gefallen am {7.11.} abends"),
    ("DATE", "am {Montag, 3. Juli 2023} gesehen"),
    ("DATE", "since {wed 10/4}"),
    ("DATE", "started {29/6}"),
    ("DATE", "born {1951, Mar 9}"),
    ("DATE", "vu le {1er mai}"),
    ("AGE_OVER_89", "grandmother Zofia, alive, {98}, lives alone"),
    ("AGE_OVER_89", "a {92}-year-old man"),
    ("AGE_OVER_89", "{104} yo F"),
    ("AGE_OVER_89", "aged {ninety-one}"),
    ("AGE_OVER_89", "mother died at {96}"),
    ("AGE_OVER_89", "born in {1921}"),
    # D, E, F
    ("PHONE", "call {(312) 555-0176}"),
    ("PHONE", "call {+49 351 5550 123}"),
    ("PHONE", "pager {41822}"),
    ("PHONE", "{five five five, zero one four two}"),
    ("FAX", "Fax: {312-555-0177}"),
    ("EMAIL", "{m.okafor@clinic.local}"),
    ("EMAIL", "{first.last at mail dot com}"),
    # G to L
    ("SSN", "SSN {219 09 9999}"),
    ("SSN", "{219\u201309\u20139999}"),
    ("SSN", "social security ending in {4471}"),
    ("MRN", "MRN: {0044178}"),
    ("MRN", "medical record number is {12 34 567}"),
    ("HEALTH_PLAN_ID", "member ID {ZGP883104921}"),
    ("MRN", "UR {QX-118 204}"),
    ("MRN", "Patient no. ........ {5521-09}"),
    ("MRN", "FILE      {Q-7715}"),
    ("MRN", "chart {14-22-07-B}"),
    ("HEALTH_PLAN_ID", "Policy ........ {ZZ-104 55 871}"),
    ("HEALTH_PLAN_ID", "Convênio/Plan no.: {0 113 008877 412 9}"),
    ("SSN", "sécurité sociale {1 71 03 75 116 004}"),
    ("SSN", "BSN {118204775}"),
    ("LICENSE", "provider no. {118204QT}"),
    ("LICENSE", "licence {BROWN 504119 J99QX}"),
    ("VEHICLE_ID", "his van (reg {LD19 QXZ})"),
    ("ID", "key safe {8812}"),
    ("ID", "job number {four four one nine two}"),
    ("ID", "user {qtrem44}"),
    ("ACCOUNT", "acct # {000338817264}"),
    ("LICENSE", "driver's license {D123-4567-8901}"),
    ("LICENSE", "DEA {BV4417729}"),
    ("VEHICLE_ID", "VIN {1HGCM82633A004352}"),
    ("VEHICLE_ID", "license plate {8ABC123}"),
    # M to R
    ("DEVICE_ID", "serial number {RNB604418H}"),
    ("DEVICE_ID", "MAC {00:1B:44:11:3A:B7}"),
    ("URL", "see {https://portal.example.org/u/77?x=1}"),
    ("IP_ADDRESS", "from {10.22.4.118}"),
    ("IP_ADDRESS", "from {2001:db8::1f}"),
    ("BIOMETRIC_ID", "fingerprint ID {FP-88213}"),
    ("ID", "accession {S21-04417}"),
    ("ID", "photo {IMG_20240603.jpg}"),
    ("CARD", "paid with {4111 1111 1111 1111}"),
    ("IBAN", "IBAN {DE89 3704 0044 0532 0130 00}"),
    ("SECRET", "key {sk-proj-abcdefghijklmnop1234}"),
]

KEPT = [
    "He is 89 years old.",
    "A 45-year-old woman, quit smoking in 2015.",
    "BP 120/80, HR 72, RR 16, SpO2 97% RA, temp 98.6 F.",
    "Pain 5/10, strength 4/5, murmur 2/6, GCS 15/15, vision 20/20.",
    "Plt 150,000, WBC 12.4, Na 138, LVEF 55-60%.",
    "Parkinson's disease, Foley catheter, Glasgow Coma Scale, negative Homans sign.",
    "Lisinopril, Metoprolol, Apixaban and Pantoprazole were continued.",
    "History of COVID-19, COPD and NSTEMI; seen by Cardiology and Physical Therapy.",
    "Take 1/2 tablet every 6 hours for 10 days.",
    "She may return to work. Will recheck labs soon.",
    "The patient lives in Ohio and speaks Spanish.",
    "MRI of L4-L5, ICD-10 code E11.9, CPT 99213.",
    "G2P1001 at 39w4d.",
    "Nottingham grade 2, Lansky 80, Khorana 1, Child-Pugh B, Papile II.",
    "Edmonton Symptom Assessment Scale 12, Philadelphia Geriatric Morale Scale 9.",
    "Denonvilliers fascia, Gimbernat ligament, Kiesselbach area, anti-Sm negative, ANCA positive.",
    "QTc 440 ms. Section healed.",
    "Urate 8.1, INR 2.1. Rose to 3.2.",
    "Travoprost 0.004% at night, safinamide 50 mg, vericiguat 5 mg.",
    "Temperature was 101 F and rose above 102.",
]


def spans(marked):
    text, wanted, at = "", [], 0
    while (start := marked.find("{", at)) >= 0:
        end = marked.index("}", start)
        text += marked[at:start]
        wanted.append((len(text), len(text) + end - start - 1))
        text += marked[start + 1 : end]
        at = end + 1
    return text + marked[at:], wanted


@pytest.fixture(scope="module")
def deidentifier():
    return Deidentifier(reference_year=2024)


@pytest.mark.parametrize(("entity", "marked"), FOUND)
def test_an_identifier_is_found_whole_and_named_by_its_type(deidentifier, entity, marked):
    text, wanted = spans(marked)
    found = deidentifier.detect(text)
    for start, end in wanted:
        covering = [f for f in found if f.start <= start and f.end >= end]
        assert covering, f"{text[start:end]!r} in {found}"
        assert covering[0].entity == entity


@pytest.mark.parametrize("text", KEPT)
def test_clinical_text_without_identifiers_is_left_alone(deidentifier, text):
    assert deidentifier.redact(text) == text


@pytest.mark.parametrize(
    ("hidden", "entity"),
    [
        ("\uff12\uff11\uff19-\uff10\uff19-\uff19\uff19\uff19\uff19", "SSN"),
        ("219\u200b-09\u200b-9999", "SSN"),
        ("219\u00ad-09-9999", "SSN"),
        ("joe\uff20mail.example.org", "EMAIL"),
        ("j\u043e\u0435@mail.example.org", "EMAIL"),
        ("\u0661\u0662/\u0660\u0663/\u0662\u0660\u0662\u0661", "DATE"),
        ("937\u2011555\u20110142", "PHONE"),
        ("Vargado\u0301ttir", "PERSON"),
        ("Var\u200dgadottir", "PERSON"),
    ],
)
def test_identifiers_in_disguise_are_found_and_removed_whole(deidentifier, hidden, entity):
    assert deidentifier.redact(f"note: {hidden} .") == f"note: [{entity}] ."
