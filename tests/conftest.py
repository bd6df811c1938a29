from hypothesis import settings

# The same examples every run: a failure is a change of the code, not of the dice.
settings.register_profile("gpubp", deadline=None, derandomize=True)
settings.load_profile("gpubp")


def pytest_configure(config):
    # Dtypes of array-api-strict and NumPy have one hash, so a dictionary of both compares them: harmless.
    config.addinivalue_line("filterwarnings", "ignore:You are comparing a array_api_strict dtype:UserWarning")
    if "s" not in config.option.reportchars:  # what is skipped is named, with its reason
        config.option.reportchars += "s"
