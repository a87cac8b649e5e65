"""The landing zone on an object store that speaks S3; ``zone`` is what others see of it."""
