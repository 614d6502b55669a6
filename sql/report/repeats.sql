-- The epoch in which one image is most often, and how often.
SELECT epoch, max(repeats) AS repeats
FROM (SELECT curriculum, trial, epoch, sample_id, count(*) AS repeats FROM manifest GROUP BY 1, 2, 3, 4)
GROUP BY epoch
ORDER BY repeats DESC, epoch
LIMIT 1
