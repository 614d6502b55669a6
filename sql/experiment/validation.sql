-- The images of the spectrum validation set, in an order of their own.
SELECT sample_id FROM validation ORDER BY sample_id
