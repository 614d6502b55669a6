-- The images of the spectrum validation set, in a fixed order.
SELECT sample_id FROM validation ORDER BY sample_id
