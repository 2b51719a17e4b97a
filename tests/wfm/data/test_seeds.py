from wfm.data.seeds import derived_seed, mix


def test_the_values_are_those_that_models_were_trained_and_videos_drawn_with():
    assert mix(0, "a") == 6977843350152749454
    assert mix(7, "sample", "clip:0", 3) == 5321794818133260319
    assert derived_seed(0, "a") == 5690829181965289459


def test_mix_tells_parts_apart():
    assert len({mix(1, 23), mix(12, 3), mix("1", 23), mix(1, "23"), mix(1, 23, 0)}) == 5
    assert mix(1, "a") == mix(1, "a")
    assert 0 <= mix("x") < 2**63


def test_derived_seeds_are_hashes():
    assert len({derived_seed(seed, name) for seed in range(10) for name in "abc"}) == 30
    assert all(0 <= derived_seed(n) < 2**63 for n in range(50))
