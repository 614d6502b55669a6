-- The classes of the data set, and the texts of each: its common name, or else its class name, in the prompt that images
-- are filtered by and in the captions.
WITH named AS (
    SELECT DISTINCT i.label, i.class_name, coalesce(n.common_name, i.class_name) AS common_name
    FROM images i
    LEFT JOIN common_names n ON n.class_name = i.class_name
),
templates AS (
    SELECT unnest($captions) AS template, unnest(range(0, array_length($captions))) AS place
)
SELECT
    n.label, n.class_name, n.common_name,
    replace($filter_prompt, '{class}', n.common_name) AS filter_prompt,
    array_agg(replace(t.template, '{class}', n.common_name) ORDER BY t.place) AS captions
FROM named n
CROSS JOIN templates t
GROUP BY n.label, n.class_name, n.common_name
