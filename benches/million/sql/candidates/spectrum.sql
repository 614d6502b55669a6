-- No candidates, so the models have nothing to do.
SELECT
    '' AS sample_id, '' AS score_id, source_id, '' AS pixel_id, label, class_name, 0 AS image_guidance, 0 AS seed,
    0 AS attempt, '' AS prompt, '' AS filter_prompt, 0 AS noise_seed, 0 AS timesteps, 0 AS unet_evaluations
FROM hard_samples
WHERE false
