-- The steps that have rejects, and their number.
SELECT step, count(*) AS rejects FROM rejects GROUP BY step
