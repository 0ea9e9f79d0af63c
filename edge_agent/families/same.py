"""What people call the kinds of things that detectors find."""

from __future__ import annotations

SAME = (
    "person people persons human pedestrian man men woman women child children kid boy girl",
    "car automobile auto vehicle",
    "truck lorry van",
    "bus coach",
    "bicycle bike cycle cyclist",
    "motorcycle motorbike scooter moped",
    "airplane aeroplane plane aircraft",
    "boat ship",
    "dog puppy",
    "cat kitten",
    "mouse mice",
    "sheep lamb",
    "cow cattle",
    "knife knives",
    "couch sofa",
    "tv television tvmonitor monitor screen",
    "dining_table diningtable table desk",
    "potted_plant pottedplant plant",
    "cell_phone cellphone phone mobile smartphone",
    "refrigerator fridge",
    "backpack rucksack",
    "handbag purse bag",
    "suitcase luggage",
    "sports_ball ball football",
    "fire_hydrant hydrant",
    "traffic_light trafficlight",
    "wine_glass wineglass glass",
    "donut doughnut",
    "hair_drier hairdryer",
    "teddy_bear teddy",
)
"""what people call one kind of thing, and what sets of labels call it; a _ is a space"""
