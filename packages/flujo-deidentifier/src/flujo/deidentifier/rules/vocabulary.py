"""Closed sets of words for the name rules, and the cues that announce a name."""

from __future__ import annotations

import re

from flujo.deidentifier.lexicon import bare, lexicon

__all__ = [
    "ACRONYMS",
    "AFTER_EPONYM",
    "BOTH",
    "CREDENTIALS",
    "EPONYM_HEADS",
    "GENERIC",
    "NOT_NAMES",
    "PARTICLES",
    "PERSON_VERBS",
    "RELATIONS",
    "TITLES",
    "VIRTUES",
    "is_generic",
]


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Words that stand capitalised where a name could stand, but are none: function words, roles, wards, headings, answers.
NOT_NAMES = _set(
    "a an the and or but nor so if of in on at by for from to with without into onto upon over under "
    "per via as than then that this these those"
    " there here it its he him his she her hers they them their theirs we us our you your i me my "
    "mine who whom whose which what when where why how"
    " is are was were be been being am has have had having do does did doing done will would shall "
    "should can could may might must not no yes"
    " also although because before after during since until while about above below between through "
    "again further once only own same too very just"
    " all any both each few more most other some such none nil unknown pending negative positive "
    "normal abnormal present absent never always currently"
    " today tomorrow yesterday tonight now later soon earlier recently previously initially overall "
    "however therefore otherwise additionally"
    " new old current former prior past next last first second third final"
    " patient patients pt client clients resident residents mother father wife husband son daughter "
    "sister brother parent parents mom mum dad spouse"
    " partner family friend neighbor neighbour guardian caregiver child children baby infant boy "
    "girl man woman male female lady gentleman person people"
    " aunt uncle niece nephew cousin grandmother grandfather grandson granddaughter grandparents "
    "stepmother stepfather fiance fiancee boyfriend girlfriend"
    " physician physicians doctor doctors nurse nurses surgeon therapist pharmacist practitioner "
    "provider providers attending resident intern fellow"
    " consultant specialist technician technologist assistant aide manager worker coordinator "
    "director chief staff team nursing student paramedic officer"
    " interpreter chaplain radiologist pathologist anesthesiologist cardiologist hospitalist "
    "dietitian dietician social case charge head registered licensed"
    " certified primary care internal medicine emergency department departments surgery surgical "
    "physical occupational speech therapy respiratory radiology cardiac"
    " pulmonary infectious disease wound pain clinic clinics hospital hospitals unit floor ward room "
    "bed office center centre service services home health"
    " outpatient inpatient laboratory lab pharmacy medical dental behavioral mental hospice "
    "palliative rehab rehabilitation intensive critical acute"
    " assessment plan plans history exam examination impression subjective objective review systems "
    "vitals vital signs allergies medications medication"
    " meds results imaging studies labs discussion course disposition discharge admission diagnosis "
    "diagnoses procedure procedures findings"
    " recommendation recommendations instructions follow followup summary note notes report reason "
    "chief complaint hpi ros date time name age sex gender"
    " race ethnicity phone fax email address city state zip county country insurance plan policy "
    "member group number id mrn dob ssn account"
    " signature signed electronically dictated transcribed reviewed author authored attested "
    "cosigned confidential page copy original dear sincerely regards"
    " thank thanks hello hi hey best kind warm yours truly cheers please re cc attn subject sent received to from"
    " denies denied reports reported states stated says said notes noted complains presents "
    "presented endorses admits appears continue continues"
    " continued start started stop stopped hold held increase decrease give given take taken takes "
    "taking see seen refer referred return returned call called"
    " check recheck monitor ordered order obtain obtained consult discussed advised recommended "
    "recommend counseled encouraged educated tolerated remains"
    " left right upper lower bilateral anterior posterior medial lateral proximal distal superior "
    "inferior chest abdomen abdominal neck back skin eye eyes"
    " ear ears nose throat mouth oral neuro cardiovascular gastrointestinal genitourinary "
    "musculoskeletal psychiatric endocrine constitutional general"
    " extremities lungs heart liver kidney brain spine hip knee ankle shoulder wrist elbow foot feet "
    "hand hands arm arms leg legs finger toe"
    " stable mild moderate severe chronic well good fair poor alert oriented awake pleasant "
    "cooperative healthy elderly young"
    " self same other na applicable available needed required reconciled updated verified "
    "not-applicable anonymous redacted"
    " nurse-practitioner full code status dnr advance directive power attorney proxy contact "
    "emergency kin relationship occupation employer school"
    " monday tuesday wednesday thursday friday saturday sunday january february march april may june "
    "july august september october november december"
    " north south east west street avenue road drive lane suite apt box"
    " fr maj sgt lt capt cpl col hon rev pastor rabbi imam judge officer detective deputy coach "
    "attorney reverend sergeant captain lieutenant corporal"
    " birthdate examiner submitting collected copies spc pfc lic ing abogado consultant"
    " caller callers spoke roommate feeding sleeping mood affect message routed sender recipient "
    "arrival triage dispo informant historian stay"
    " ok okay oh please whether perhaps maybe let lets one two three four five six seven eight nine ten"
    " protocol consent risks benefits alternatives questions answered understanding verbalized "
    "agreement agrees understood informed"
    " service-line transport transfer ambulance ems police fire court legal school work workers compensation disability"
)
CREDENTIALS = _set(
    "md do rn np pa pa-c pac phd pharmd lcsw lmsw msw lpn lvn crna dds dmd dpm dpt pt ot otr otr/l "
    "rph fnp fnp-c fnp-bc aprn arnp cnm mbbs mbchb frcs frcp mrcp facs facp facc"
    " faap mph msn bsn rd rdn ldn lmft psyd esq jr sr ii iii iv cma ma emt emt-p cna rt rrt slp "
    "ccc-slp dnp cnp acnp agnp pmhnp ccrn cde ms ba bs od dc nd vmd dvm aud lpc lac cnor rnfa"
)
PARTICLES = _set(
    "de del los las lo de-la della di da do dos das du des la le el al van von vom zu zum der den ten ter te af "
    "av bin ibn bint abu ben y e st san santa mac mc o d l"
)
# A word after which a name before it is that of a thing: "Crohn disease", "Foley catheter".
EPONYM_HEADS = _set(
    "disease diseases syndrome sign signs test tests score scale scales criteria criterion procedure "
    "fracture palsy tumor tumour lymphoma reflex reflexes"
    " maneuver manoeuvre phenomenon catheter classification ulcer ulcers contracture esophagus stain "
    "culture tube drain loop node nodes ring rings gland glands duct ligament"
    " tendon cyst neuroma thyroiditis anemia chorea dementia paralysis ataxia nephropathy arteritis "
    "position incision forceps retractor clamp splint"
    " brace boot cast wire wires pin needle valve shunt pump line port fundoplication gastrectomy "
    "operation repair osteotomy hernia index equation formula"
    " method technique grade grading stage staging class stimulation respirations respiration "
    "breathing coma inventory questionnaire exam examination law triad"
    " tetralogy pouch space canal bodies body cells nodules spots lines rule rules effect response "
    "virus encephalopathy psychosis granulomatosis sarcoma"
    " angina edema membrane sphincter area aphasia block hearing exercises exercise thermometer unit "
    "lamp light drape bandage stockings sutures suture knot antibody factor"
    " point points grid clip clamp manoeuvres maneuvers contractions criteria dystrophy capsule crescents murmur "
    "pupil pupils"
    " scissors elevator loupe lens stapler mesh patch flap graft conduit incisions port ports trocar speculum dilator"
    " cardiomyopathy neuropathy myopathy arthropathy dermatosis melanoma lymphadenitis hepatitis thyroid stroke seizure"
    " features symptoms pattern rhythm interval correction staging staged classes types thickness level levels "
    "cells corpuscles"
    " lung purpura staining medium agar assay titre titer reagent solution powder paste ointment buffer lactate"
    " deformity joint bone fasciitis gangrene granuloma wheelchair crutches walker bed monitor "
    "regimen protocol diet orthosis collar"
)
RELATIONS = (
    "wife|husband|spouse|partner|mother|father|mom|mum|mommy|dad|daddy|son|daughter|sister|brother"
    "|sibling|twin|aunt|uncle|niece|nephew|cousin"
    "|grand(?:mother|father|son|daughter|ma|pa|child|parent)|granddaughter|step(?:mother|father|son"
    "|daughter|brother|sister)|half[- ](?:brother|sister)"
    "|(?:mother|father|son|daughter|sister|brother)-in-law|fianc[ée]e?|boyfriend|girlfriend"
    "|ex-(?:wife|husband)|friend|roommate|room-mate|neighbou?r|caregiver|carer"
    "|caretaker|guardian|foster (?:mother|father|parent)|godmother|godfather|landlord|landlady|boss"
    "|supervisor|coworker|co-worker|colleague|teacher|coach|pastor|priest"
    "|volunteer|sponsor|mentor|candidate|visitor|tutor|victim|advocate|paralegal|paramedic|deacon"
    "|sitter|rommate|bride|groom"
    r"|babysitter|nanny|aide|home health aide|health aide|interpreter|translator|attorney|lawyer"
    "|social worker|case manager|case worker|caseworker|therapist|counselor"
    "|chaplain|nurse|charge nurse|night nurse|day nurse|scrub nurse|circulator|midwife|doula"
    "|pharmacist|dentist|optometrist|podiatrist|psychologist|psychiatrist"
    "|cardiologist|oncologist|neurologist|urologist|nephrologist|surgeon|pediatrician|gynecologist"
    "|dermatologist|endocrinologist|rheumatologist|pulmonologist"
    "|gastroenterologist|radiologist|pathologist|anesthesiologist|orthopedist|internist|hospitalist"
    "|physician|pcp|primary care (?:physician|provider|doctor)|doctor|dr"
    "|resident|intern|fellow|attending|consultant|student|technician|technologist|tech|receptionist"
    "|secretary|scribe|trainer|physical therapist|sitter|dog|cat"
)
TITLES = (
    "mr|mrs|ms|mx|fr(?=\\.)|sgt\\.? maj|maj(?=\\.)|miss|mister|dr|doctor|drs|prof|professor|rev"
    "|reverend|pastor|rabbi|imam|chaplain|sgt|sergeant|capt|captain|lieutenant|corporal|officer"
    "|detective"
    "|deputy|judge|hon|sir|dame|madam|nurse|sister|brother|father|mother|herr|frau|monsieur|madame"
    "|mme|mlle|señora?|senora?|sra|srta|signora?|coach|attorney|atty"
    "|uncle|aunt|auntie|aunty|grandma|grandpa|granny|nana|cousin|pharmacist|therapist|resident|intern"
    "|attending|surgeon|physician|hospitalist|cardiologist"
)
PERSON_VERBS = _set(
    "denies denied reports reported states stated says said notes noted complains complained "
    "presents presented endorses endorsed admits admitted"
    " called calls lives lived tolerated tolerates agrees agreed feels felt wants wanted asked asks "
    "came arrived went requests requested verbalized"
    " understands understood works worked returns returned takes took remains continues tells told "
    "describes described recalls brought drove"
    " accompanied underwent received lost gained quit smokes drinks enjoys prefers refuses refused "
    "declines declined ate slept walks walked is was has had"
)
# Given names that open sentences as plain words as well; the verbs "is, was, has, had" prove nothing after them.
VIRTUES = _set(
    "hope faith grace joy will may art chance charity patience prudence mercy trinity melody bill "
    "mark rich grant page summer autumn dawn ray pat frank"
)
# Words that make up the names of wards and services, which every hospital has.
GENERIC = _set(
    "the of and & at in a critical comfort supportive standard intermediate transitional "
    "postoperative perioperative level aftercare self respite managed daily foster preventive "
    "preventative follow-up self-care emergency department primary care clinic pain wound hospital "
    "medical "
    "center medicine internal family health healthcare"
    " home nursing surgery surgical cardiac intensive unit outpatient inpatient urgent general "
    "community local regional university school high"
    " middle elementary nursery college pharmacy laboratory labs lab imaging radiology cardiology "
    "dermatology pediatrics orthopedics dental physicians"
    " mental behavioral public women's womens children's childrens veterans rehab rehabilitation "
    "skilled facility facilities assisted living senior dialysis cancer infusion diabetes"
    " sleep travel walk-in walk anticoagulation coumadin transplant trauma stroke heart vascular eye "
    "ear breast spine hand foot sports occupational physical"
    " therapy social services service system network group company church insurance bank fire police "
    "sheriff shelter homeless hospice palliative"
    " preop pre-op postop post-op oncology neurology urology nephrology surgical ambulatory day "
    "hospitalist specialty outside this that our your his her their my no any"
    " continue discharge discharged admit admitted transfer transferred refer referred to from for "
    "with by per see seen patient plan follow-up follow"
    " history private local another new prior previous your return call contact he she they i we it "
    "is was has had high-school medicaid medicare covid chronic acute severe mild"
    " life workers comp compensation disability current former prior electronic record records "
    "review social past quality oral sexual reproductive adult child pediatric geriatric bone joint "
    "allergy asthma"
    " nuclear geriatric addiction regenerative genomic cardiovascular traditional chinese alternative "
    "complementary integrative"
    " reproductive maternal-fetal hyperbaric aerospace preventive veterinary intensive care neonatal burn burns "
    "assessment"
    " high dependency step-down telemetry coronary ct mri blood over-the-counter street illicit recreational "
    "prescription"
    " county city state village town valley hills island beach heights springs falls living personal "
    "allied global digestive kidney liver lung prenatal maternal fetal obstetrics gynecology"
)
# Words that are closed to the name rules except where a cue leaves no doubt ("wife May", "Dr. Young", "Helen West").
BOTH = _set(
    "will young may page head hand case good fair best west east north street lane march april june "
    "august knee long wise power court fields monday tuesday wednesday thursday friday saturday sunday"
)
# Short forms in capitals that are no one's name or initials: services, tests, findings, units, degrees.
ACRONYMS = _set(
    "ana anca asa asd abg abi adl aed afb afp aha aids aka aki ala all alp als alt am ama amd ami aml ana ap apd "
    "apt ards arf asl ast av avm avr bid bka "
    "bls bmi bnp bp bpd bph bun cab cabg cad cal cap cbc cbt ccu cea cf chd chf ckd cll cmv cn cns co copd cp "
    "cpap cpk cpr cr crp crt csf ct cta cva cvc "
    "cvp cxr dat dbp dc dic dka dm dna dnr doa dob dos dre dt dvt ebv ecg echo ecmo ed eeg ef egd ekg emg ems "
    "emt enc ent eob er ercp esr esrd et etoh fbc fda "
    "fev ffp fhr fna fob fsh ft fu fvc gad gbm gbs gcs gerd gfr gi gmc gn gp gtt gu gyn hb hbv hcg hct hcv hdl "
    "hgb hhs hiv hla hlh hmo hpi hpv hr hrt hsv "
    "ht htn hus ibd ibs icd icp icu id iga ige igg igm im imp in inr iop ip ipf iq it itp iv ivc ivf jvp kub "
    "kcal la lad lbp ldh ldl lea lft lh lll lmp lp "
    "lsd luq lv lvef lvh map mca mch mcv md mdma mds mdt mgus mi min mmr mr mra mri mrsa ms msu mva na nad nas "
    "neg ng nhs nicu nkda no non npo ns nsaid "
    "nsr nyha ob od ok op opd or os osa ot otc pa pac pacu pap pat pci pcos pcp pcr pcv pe peep peg per pet pft "
    "ph phn phq pi picc pid plt pm pmh pmr pna po "
    "pod pos post prn pro psa psv pt pta ptsd ptt pud pvc pvd qd qid ra rbc rdw ref rem res rh rhd rlq rn rna "
    "ros rr rsv rt rta ruq rv rx sah sat sbo sbp "
    "sc sdh sem shx sids sle slp snf sob ssri sta stat std stemi sti sv svt sw tb tbi tee tens tft thr tia tid "
    "tka tkr tlc tnf tnm tof tpa tpn tsh tte "
    "turp ua ugi uk uri us usa uti uv vac vas vf vre vs vsd vt vte wbc wcc wnl wt yo ace act aim ard bsa cast "
    "cat ace gas kit lap led nurse ray sam sim "
    "ok na nil yes see plan tel fax ref re cc am bd ch das dec der des die doc eds el en est et ext fee fr fri "
    "gb ga gr gs ii iii ird je jan jul jun kg kv lat lb "
    "le li mar may med mg ml mm mol mon mrn nov oct old one out own pct ppd ppm pre pts pv rad rec rom sep set "
    "sex six sos spo sr sun ta tab tav ten the thu "
    "top tot tue two und un unk use van via vit von was wed wk wks yr yrs"
)
# What may follow an eponym that stands for its sign or device: "Foley draining", "Murphy negative".
AFTER_EPONYM = _set(
    "i ii iii iv v vi type positive negative absent present equivocal removed placed draining drain "
    "change changed discontinued inserted patent intact bilaterally bag output care"
    " deferred normal abnormal was is in out to and or for on with at dc"
)


def is_generic(text: str) -> bool:
    """Whether every word is one that names a kind of ward or service ("Pain Clinic") and no particular one."""
    words = lexicon()
    return all(
        low in GENERIC or low in NOT_NAMES or words.is_allowed(low) or words.is_medical(low)
        for low in (bare(w.strip(".,'")) for w in re.split(r"[ ,]+", text) if w)
    )
