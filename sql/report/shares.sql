-- How many training images are hard, and how many are not.
SELECT
    count(*) FILTER (WHERE h.source_id IS NOT NULL) AS hard,
    count(*) FILTER (WHERE h.source_id IS NULL) AS non_hard
FROM images i
LEFT JOIN hard_samples h ON h.source_id = i.source_id
WHERE i.split = 'train'
