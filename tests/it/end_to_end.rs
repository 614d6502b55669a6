//! The digits pipeline as it ships, and what the README promises about it.

use serde_json::Value;

use crate::support::{Workspace, skipped};

fn step<'a>(plan: &'a Value, name: &str) -> &'a Value {
    plan.as_array().unwrap().iter().find(|step| step["step"] == name).unwrap()
}

#[test]
fn the_digits_pipeline() {
    let workspace = Workspace::full();
    let plan = workspace.json("plan", &[])["steps"].clone();
    let run = workspace.run();

    // The forecast equals what was done.
    assert_eq!(step(&plan, "hard_samples")["rows"]["due"], 27);
    assert_eq!(step(&plan, "candidates")["rows"]["due"], 27 * 6 * 4);
    let forecast = &step(&plan, "spectrum")["unet_evaluations"];
    let first = workspace.number("SELECT sum(unet_evaluations) FROM candidates WHERE attempt = 0");
    let all = workspace.number("SELECT sum(unet_evaluations) FROM candidates");
    assert_eq!(forecast["due"].as_f64().unwrap(), first);
    assert!(first < all && all <= forecast["at_most"].as_f64().unwrap());
    assert_eq!(workspace.number("SELECT sum(unet_evaluations) FROM ledger"), all);
    assert_eq!(run["engine"]["unet_evaluations"].as_f64().unwrap(), all);

    // Retries end at the first attempt that passes, or at the last one allowed.
    assert_eq!(
        workspace.number(
            "SELECT count(*) FROM candidates c JOIN scores s ON s.score_id = c.score_id
             JOIN candidates later ON later.source_id = c.source_id AND later.image_guidance = c.image_guidance
                 AND later.seed = c.seed AND later.attempt = c.attempt + 1
             WHERE s.text_similarity >= $min_text_similarity"
        ),
        0.0
    );
    assert_eq!(workspace.number("SELECT max(attempt) FROM candidates"), 2.0);

    // From nearly the real image to nearly only the prompt.
    let levels = run["levels"].as_array().unwrap();
    let of = |name: &str| -> Vec<f64> { levels.iter().map(|level| level[name].as_f64().unwrap()).collect() };
    assert_eq!(of("image_guidance"), [0.0, 10.0, 30.0, 50.0, 70.0, 90.0]);
    let image = of("image_similarity");
    assert!(image.windows(2).all(|pair| pair[0] < pair[1]), "{image:?}");
    let text = of("text_similarity");
    assert!(text[0] > text[5], "{text:?}");

    // The manifest has every epoch of the schedule, with the configured shares.
    assert_eq!(workspace.number("SELECT count(DISTINCT epoch) FROM manifest"), 26.0);
    let share = workspace.number(
        "SELECT max(abs(share - 0.4)) FROM (
             SELECT avg(CASE WHEN origin = 'non_hard' THEN 0.0 ELSE 1.0 END) AS share FROM manifest GROUP BY epoch)",
    );
    assert!(share < 0.002, "{share}");
    assert_eq!(
        workspace.number("SELECT count(*) FROM manifest m JOIN images i USING (source_id) WHERE i.split <> 'train'"),
        0.0
    );

    let sheet = image::open(workspace.lake().join("digits_lt/contact_sheet.png")).unwrap();
    assert_eq!((sheet.width(), sheet.height()), (4 + 7 * 68, 4 + 24 * 68));

    assert!(workspace.ok("verify", &[]).starts_with("clean"));
    assert!(skipped(&workspace.run()).values().all(|&skipped| skipped));
    let status = workspace.json("status", &[]);
    assert!(status["tables"].as_array().unwrap().iter().all(|table| table["state"] != "will run"));
}
