-- Must return no row: the epochs of the curriculum that train on no image of a level that they should have.
SELECT s.curriculum, s.trial, s.epoch, s.image_guidance
FROM schedule s
WHERE s.image_guidance < 100
    AND NOT EXISTS (
        SELECT 1
        FROM manifest m
        WHERE m.curriculum = s.curriculum AND m.trial = s.trial AND m.epoch = s.epoch AND m.sample_id <> m.source_id
    )
ORDER BY s.curriculum, s.trial, s.epoch, s.image_guidance
