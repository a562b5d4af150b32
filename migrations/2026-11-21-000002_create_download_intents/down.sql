DROP TABLE download_intents;
