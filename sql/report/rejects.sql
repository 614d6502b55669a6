-- The steps that have rejects, and how many.
SELECT step, count(*) AS rejects FROM rejects GROUP BY step
