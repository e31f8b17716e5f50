"""The labels of COCO, for which most models of the zoo are trained.

The ids are those of COCO's annotations (Lin et al. 2014, arXiv:1405.0312): 80 labels have ids from 1 to 90.
"""

IDS = 90
# All labels in the order of their ids. Ten ids have no label.
WITHOUT_LABEL = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
LABELS = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, parking
meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag, tie,
suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis
racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog,
pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, cell
phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush
"""
NAMES = dict(
    zip(sorted(set(range(1, IDS + 1)) - WITHOUT_LABEL), (each.strip() for each in LABELS.split(",")), strict=True)
)
