"""Every purpose in every round has random numbers of its own, the same in every run."""

from bonsai_core.seeds import generator


def test_seed_round_and_purpose_each_make_a_difference() -> None:
    seeds = [0, 1, 2**32, 2**63 - 1]
    drawn = [
        generator(seed, number, purpose).random()
        for seed in seeds
        for number in (0, 1, 2)
        for purpose in ("calibration", "masks", "prior")
    ]
    assert len(set(drawn)) == len(drawn)


def test_the_numbers_are_the_same_in_every_run() -> None:
    assert generator(7, 3, "masks").integers(0, 1000, 4).tolist() == [570, 554, 616, 978]
