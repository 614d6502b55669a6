-- Problems of submitted feedback (`incoming`): each row is a problem, and how many rows have it.
WITH asked AS (
    SELECT DISTINCT trial, epoch, phase FROM incoming
),
known AS (
    SELECT trial, epoch, phase, sample_id FROM feedback WHERE curriculum = $strategy
    UNION
    SELECT trial, epoch, phase, sample_id FROM incoming
),
complete AS (
    SELECT k.trial, k.epoch
    FROM known k
    JOIN validation v ON v.sample_id = k.sample_id
    WHERE k.phase IN ('before', 'after')
    GROUP BY k.trial, k.epoch
    HAVING count(*) = 2 * (SELECT count(*) FROM validation)
),
stale AS (
    SELECT DISTINCT trial
    FROM (
        SELECT f.trial, f.epoch, f.phase, count(v.sample_id) AS samples
        FROM feedback f
        LEFT JOIN validation v ON v.sample_id = f.sample_id
        WHERE f.curriculum = $strategy AND f.epoch < $curriculum_epochs
        GROUP BY f.trial, f.epoch, f.phase
    )
    WHERE samples < (SELECT count(*) FROM validation)
)
SELECT 'rows with a NULL' AS problem, count(*) AS rows
FROM incoming
WHERE curriculum IS NULL OR trial IS NULL OR epoch IS NULL OR phase IS NULL OR sample_id IS NULL OR probability IS NULL
UNION ALL
SELECT 'rows of another curriculum than the pipeline''s', count(*) FROM incoming WHERE curriculum <> $strategy
UNION ALL
SELECT 'rows of a trial that `curriculum.trials` does not name', count(*)
FROM incoming
WHERE trial NOT IN (SELECT unnest($trials))
UNION ALL
SELECT 'rows of an epoch outside of the curriculum', count(*)
FROM incoming
WHERE epoch < 0 OR epoch >= $curriculum_epochs
UNION ALL
SELECT 'rows of a phase other than `before` and `after`', count(*) FROM incoming WHERE phase NOT IN ('before', 'after')
UNION ALL
SELECT 'rows whose probability is not from 0 to 1', count(*)
FROM incoming
WHERE NOT (probability >= 0.0 AND probability <= 1.0) OR isnan(probability)
UNION ALL
SELECT 'rows of a sample that is not in the spectrum validation set', count(*)
FROM incoming f
WHERE NOT EXISTS (SELECT 1 FROM validation v WHERE v.sample_id = f.sample_id)
UNION ALL
SELECT 'duplicate rows', count(*)
FROM (SELECT 1 FROM incoming GROUP BY curriculum, trial, epoch, phase, sample_id HAVING count(*) > 1)
UNION ALL
SELECT 'samples of the spectrum validation set that are missing from an epoch''s phase', count(*)
FROM asked a
CROSS JOIN validation v
WHERE NOT EXISTS (
    SELECT 1 FROM incoming f
    WHERE f.trial = a.trial AND f.epoch = a.epoch AND f.phase = a.phase AND f.sample_id = v.sample_id
)
UNION ALL
SELECT 'rows of a trial that was measured on another spectrum validation set (add a new trial to `curriculum.trials`)',
    count(*)
FROM incoming f
WHERE EXISTS (SELECT 1 FROM stale s WHERE s.trial = f.trial)
UNION ALL
SELECT 'rows that contradict feedback already stored for that epoch (use a new trial to start over)', count(*)
FROM incoming f
JOIN feedback o
    ON o.curriculum = f.curriculum AND o.trial = f.trial AND o.epoch = f.epoch AND o.phase = f.phase
    AND o.sample_id = f.sample_id
WHERE o.probability <> f.probability
UNION ALL
SELECT 'rows of an epoch whose predecessor has no complete feedback', count(*)
FROM incoming f
WHERE f.epoch > 0
    AND NOT EXISTS (SELECT 1 FROM complete c WHERE c.trial = f.trial AND c.epoch = f.epoch - 1)
