"""Steps of Flujo pipelines on AWS Lambda."""
