"""Word lists. Words that only the evaluation may use are told apart by `split.held_out`."""

from .split import held_out

CAPITALS = dict(pair.split(":") for pair in """
France:Paris Germany:Berlin Italy:Rome Spain:Madrid Portugal:Lisbon Austria:Vienna
Poland:Warsaw Greece:Athens Sweden:Stockholm Norway:Oslo Finland:Helsinki
Denmark:Copenhagen Ireland:Dublin Belgium:Brussels Hungary:Budapest Romania:Bucharest
Bulgaria:Sofia Croatia:Zagreb Ukraine:Kyiv Turkey:Ankara Egypt:Cairo Kenya:Nairobi
Ghana:Accra Nigeria:Abuja Morocco:Rabat Japan:Tokyo China:Beijing India:Delhi
Thailand:Bangkok Vietnam:Hanoi Indonesia:Jakarta Iran:Tehran Iraq:Baghdad Cuba:Havana
Peru:Lima Chile:Santiago Canada:Ottawa Brazil:Brasilia Australia:Canberra Russia:Moscow
England:London""".split()) | {"Mexico": "Mexico City"}

CITIES = sorted(CAPITALS.values()) + """Chicago Boston Seattle Munich Hamburg Milan Naples
Porto Lyon Geneva Zurich Osaka Kyoto Mumbai Sydney Toronto Montreal Dallas Denver
Miami""".split()
CITIES_HELD_OUT = "Prague Riga Tallinn Oxford Leeds Phoenix Austin Valencia Bergen Kobe".split()

NAMES = """Anna Ben Carla David Emma Felix Greta Hugo Iris Jack Karl Lena Maria Nina Oscar
Paul Rosa Sam Tom Vera Will Zoe Alice Bob Clara Dan Eva Frank Grace Henry Ivan Julia Kate
Leo Mia Noah Olga Peter Ruth Simon""".split()

WORDS = sorted(set("""
apple pear plum fig lemon peach grape melon cherry mango banana onion carrot bean corn
potato tomato garlic berry olive cat dog cow pig hen goat fox wolf bear lion tiger horse
sheep mouse snake frog bird fish duck owl bee ant camel zebra eagle goose spider turtle
rabbit monkey sun moon star sky rain snow wind storm cloud river lake sea hill rock sand
tree leaf root seed grass flower rose forest desert island valley beach coast field stream
house door wall roof floor room window gate fence tower castle church school market table
chair lamp bed desk shelf sofa carpet mirror candle basket bucket hammer ladder pillow
blanket camera book page pen ink paper letter word story song music drum horn bell flute
violin guitar piano car bus train boat ship plane wheel road bridge street city town truck
wagon engine anchor king queen child man woman friend doctor farmer baker sailor teacher
soldier hand foot head eye ear nose mouth arm leg bone heart finger shoulder bread cheese
milk water tea coffee soup rice cake salt sugar pepper egg meat honey butter cream juice
knife fork spoon plate cup glass bottle kettle oven stove red blue green black white brown
gold silver iron stone wood cloth silk wool copper marble coat hat shoe sock ring coin key
lock clock button pocket ribbon scarf glove day night week month year hour spring summer
autumn winter minute north south east west fire light shadow dream sleep walk run jump sing
dance play work read write think speak listen open close start stop carry bring throw catch
climb build paint draw count learn fast slow big small old new hot cold long short high low
good bad happy sad kind brave quiet loud soft hard sweet sour bright dark clean dirty early
late heavy empty narrow wide smooth rough""".split()))
WORDS_TRAINING = [word for word in WORDS if not held_out("w", word)]
WORDS_HELD_OUT = [word for word in WORDS if held_out("w", word)]

ITEMS = """lamp chair table book pen cup plate phone clock bag hat coat shoe ball box key
ring knife spoon bottle mirror carpet candle basket bucket hammer ladder pillow blanket
camera""".split()
ROOMS = "kitchen garden garage office attic cellar hall bedroom library bathroom".split()
COLORS = "red blue green yellow black white pink brown gray orange".split()
FOODS = "apples pears bread cheese soup rice pasta cake fish salad pizza plums".split()
