-- The real images that could be read: what the listing and the pixels say about each. An image that is only referenced
-- is identified by its path and the version of its file, not by its content.
SELECT
    l.source_id, l.pixel_id, l.path, l.label, l.class_name, l.split,
    p.info['width'] AS width, p.info['height'] AS height,
    p.info['format'] AS format, coalesce(p.info['digest'], l.pixel_id) AS digest
FROM listing l
JOIN pixels p ON p.pixel_id = l.pixel_id
