"""The shop's settings: one SQLite file, and streamq."""

import json
import os

SECRET_KEY = "for tests"  # noqa: S105
DEBUG = True
INSTALLED_APPS = ["shop", "streamq.contrib.django"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["SHOP_DB"], "CONN_MAX_AGE": 0}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
ROOT_URLCONF = "shop.urls"
ALLOWED_HOSTS = ["*"]
STREAMQ = json.loads(os.environ["SHOP_STREAMQ"])
