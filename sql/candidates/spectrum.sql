-- Every image to generate: hard sample × guidance level × seed × attempt.
-- A slot's next attempt becomes due when every earlier one has failed: its image scored below the threshold, or could
-- not be generated. An image that could not be scored says nothing about the slot, so it causes no further attempt.
-- Prompts use the common names of classes.
WITH slots AS (
    SELECT
        h.source_id, i.pixel_id, i.digest, h.label, h.class_name, c.common_name, c.filter_prompt,
        g.image_guidance, g.unet_evaluations, s.seed, a.attempt,
        timesteps_run($timesteps, g.image_guidance) AS timesteps
    -- A cross join holds its left side in memory, so the images are on the right.
    FROM (SELECT unnest($image_guidance) AS image_guidance, unnest($unet_evaluations) AS unet_evaluations) g
    CROSS JOIN unnest($seeds) AS s(seed)
    CROSS JOIN (SELECT unnest(range(0, $max_attempts)) AS attempt) a
    CROSS JOIN hard_samples h
    JOIN images i ON i.source_id = h.source_id
    JOIN classes c ON c.label = h.label
),
described AS (
    SELECT
        slots.*,
        coalesce(d.texts[1 + draw(array_length(d.texts), 'prompt', $seed,
            slots.source_id, slots.image_guidance, slots.seed, slots.attempt)], '') AS description
    FROM slots
    LEFT JOIN descriptions d ON d.class_name = slots.class_name
),
prompted AS (
    SELECT
        source_id, pixel_id, digest, label, class_name, image_guidance, seed, attempt, unet_evaluations,
        replace(replace($generation_prompt, '{description}', description), '{class}', common_name) AS prompt,
        filter_prompt,
        -- Each candidate has its own stream of noise.
        draw(9223372036854775807, 'noise', $seed, source_id, image_guidance, seed, attempt) AS noise_seed,
        timesteps
    FROM described
    -- If no timestep is left, a further attempt would be the same image.
    WHERE attempt = 0 OR timesteps > 0
),
identified AS (
    SELECT
        prompted.*,
        digest('sample', $generator, source_id, digest, image_guidance, seed, attempt, prompt, noise_seed) AS sample_id
    FROM prompted
),
scorable AS (
    SELECT identified.*, digest('score', $clip, sample_id, filter_prompt) AS score_id FROM identified
),
judged AS (
    SELECT
        c.*,
        coalesce(s.text_similarity < cast($min_text_similarity AS real), false) OR r.id IS NOT NULL AS failed
    FROM scorable c
    LEFT JOIN scores s ON s.score_id = c.score_id
    LEFT JOIN (SELECT DISTINCT id FROM rejects WHERE step = 'spectrum') r ON r.id = c.sample_id
),
counted AS (
    SELECT
        judged.*,
        coalesce(sum(CASE WHEN failed THEN 1 ELSE 0 END) OVER (
            PARTITION BY source_id, image_guidance, seed ORDER BY attempt
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ), 0) AS earlier_failures
    FROM judged
)
SELECT
    sample_id, score_id, source_id, pixel_id, label, class_name, image_guidance, seed, attempt,
    prompt, filter_prompt, noise_seed, timesteps, unet_evaluations
FROM counted
WHERE earlier_failures = attempt
