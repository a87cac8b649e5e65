"""An ingestion gateway in front of Apache Airflow."""
