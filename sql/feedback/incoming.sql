-- Feedback as a trainer submits it (`file`), with an id for each row.
SELECT
    digest('feedback', curriculum, trial, epoch, phase, sample_id) AS feedback_id,
    curriculum, trial, epoch, phase, sample_id, probability
FROM (
    SELECT
        cast(curriculum AS varchar) AS curriculum, cast(trial AS varchar) AS trial, cast(epoch AS bigint) AS epoch,
        cast(phase AS varchar) AS phase, cast(sample_id AS varchar) AS sample_id,
        cast(probability AS double) AS probability
    FROM file
)
