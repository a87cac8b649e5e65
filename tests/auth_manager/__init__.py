"""The auth manager: tokens alone, then the whole of Airflow's API server on a real database."""
