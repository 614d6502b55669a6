-- As many training images as ImageNet-LT has: 114,203 in 864 classes, and 1,643 in 136 classes of fewer than 20.
SELECT
    digest('source', number) AS source_id, digest('pixel', number) AS pixel_id,
    concat('train/', number) AS path, label, concat('class ', label) AS class_name, 'train' AS split,
    256 AS width, 256 AS height, 'jpeg' AS format, digest('image', number) AS digest
FROM (
    SELECT number, CASE WHEN number < 114203 THEN number % 864 ELSE 864 + (number - 114203) % 136 END AS label
    FROM (SELECT unnest(range(0, 115846)) AS number)
)
