-- The remaining work of the model steps: rows and UNet evaluations of the attempts that are due now, and at most, if
-- every further attempt is needed.
WITH open AS (
    SELECT
        c.attempt, c.unet_evaluations,
        CASE WHEN s.sample_id IS NULL AND r.id IS NULL THEN 1 ELSE 0 END AS unmade
    FROM candidates c
    LEFT JOIN spectrum s ON s.sample_id = c.sample_id
    LEFT JOIN (SELECT DISTINCT id FROM rejects WHERE step = 'spectrum') r ON r.id = c.sample_id
    WHERE NOT EXISTS (SELECT 1 FROM scores k WHERE k.score_id = c.score_id)
        AND NOT EXISTS (SELECT 1 FROM rejects j WHERE j.step = 'scores' AND j.id = c.score_id)
)
SELECT
    'spectrum' AS step,
    coalesce(sum(unmade), 0) AS rows,
    coalesce(sum($max_attempts - attempt - 1 + unmade), 0) AS rows_at_most,
    coalesce(sum(unmade * unet_evaluations), 0) AS unet_evaluations,
    coalesce(sum(($max_attempts - attempt - 1 + unmade) * unet_evaluations), 0) AS unet_evaluations_at_most
FROM open
UNION ALL
SELECT 'scores', count(*), coalesce(sum($max_attempts - attempt), 0), 0, 0
FROM open
