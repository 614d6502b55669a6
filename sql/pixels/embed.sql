-- Every image of the listing, read once and stored in the lake in its standard form: 8-bit RGB, upright.
-- An image that cannot be decoded has an `error` and becomes a reject.
SELECT pixel_id, source_id, image, image_info(image) AS info
FROM (SELECT pixel_id, source_id, read_image(path) AS image FROM listing)
