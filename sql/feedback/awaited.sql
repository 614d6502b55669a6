-- What an adaptive curriculum waits for: the first epoch of each trial without complete feedback.
SELECT t.trial, count(p.epoch) AS epoch
FROM (SELECT unnest($trials) AS trial) t
LEFT JOIN progress p ON p.curriculum = $strategy AND p.trial = t.trial AND p.chosen
GROUP BY t.trial
HAVING count(p.epoch) < $curriculum_epochs
ORDER BY t.trial
