"""What tests share: servers, labs, data, helpers. No test is here."""
