//! Valid files, and the configurations that they parse to.

use insta::assert_snapshot;

use super::{FULL, SMALL, sound};
use crate::config::{Parameter, Split};

#[test]
fn the_smallest_file_gets_the_defaults() {
    assert_snapshot!(serde_json::to_string(&sound(SMALL, &[])).unwrap(), @r##"{"name":"small","seed":0,"lake_root":"lake","sql_dir":null,"source":{"kind":{"parquet":{"image_column":"image","label_column":"label"}},"root":"data","splits":{"names":[["train",["train.parquet"]]],"shares":[]},"sql":"pixels/embed.sql","classes":null,"label_kind":null,"background":"#ffffff"},"models":{"diffusion":"models/d","clip":"models/c","batch":null,"classifiers":{}},"hard_samples":{"sql":"hard_samples/few_shot.sql","max_class_count":20,"confidences":null,"classifier":null,"max_probability":1.0,"hard_fraction":1.0,"exclude_classes":[]},"prompts":{"descriptions":null,"common_names":null,"generation":"a photo of {class}","filter":"a photo of {class}","captions":["a photo of {class}."]},"spectrum":{"image_guidance":[0,50],"seeds":[1,2],"timesteps":50,"guidance_scale":10.0,"scheduler":null,"negative_prompt":null,"noise":"counter","pure_noise_at_zero":false,"size":null,"keep_aspect":true,"area":null},"filter":{"sql":"kept/text_similarity.sql","frame":"center_crop","min_text_similarity":0.3,"max_attempts":6},"validation":{"sources":0},"curriculum":{"strategy":"diverse_to_specific","epochs":65,"curriculum_epochs":60,"levels":[0,50],"non_hard_fraction":0.3,"hard_share":0.136,"synthetic_per_hard":null,"max_repeats":10,"level":null,"seed":0,"trials":["0"],"probe_size":0,"exploration":0.0,"class_balanced":false,"manifest":"manifest/mixed.sql"},"learner":{"architectures":["mlp"],"image_side":16,"batch_size":64,"iterations_per_epoch":16,"learning_rate":0.001,"weight_decay":0.0001},"experiment":{"strategies":["diverse_to_specific"],"losses":["cross_entropy"],"learner_seeds":10,"many_class_count":100,"worst_classes":3,"pretraining":null,"splits":[]},"rejects":{"max_fraction":0.01},"cuda":{"memory_limit_mib":null,"tf32":null,"fast":false},"queries":{"memory_limit_mib":null},"steps":[],"expect":[],"parameters":{}}"##);
}

#[test]
fn every_key_is_read() {
    assert_snapshot!(serde_json::to_string(&sound(FULL, &[])).unwrap(), @r##"{"name":"full-1","seed":-7,"lake_root":"s3://bucket/lake","sql_dir":"my_sql","source":{"kind":{"parquet":{"image_column":"photo","label_column":"digit"}},"root":"memory:///data","splits":{"names":[["train",["train.parquet"]],["test",["test/0.parquet","test/1.parquet"]]],"shares":[]},"sql":"pixels/reference.sql","classes":"classes.json","label_kind":null,"background":"#102030"},"models":{"diffusion":"models/d","clip":"models/c","batch":null,"classifiers":{"resnet":"models/r"}},"hard_samples":{"sql":"hard_samples/mine.sql","max_class_count":16,"confidences":null,"classifier":"resnet","max_probability":1.0,"hard_fraction":1.0,"exclude_classes":["empty","no name"]},"prompts":{"descriptions":"texts.json","common_names":"names.json","generation":"a {class}, {description}","filter":"a {class}","captions":["a photo of {class}."]},"spectrum":{"image_guidance":[0,10],"seeds":[10,20],"timesteps":1000,"guidance_scale":7.0,"scheduler":"euler","negative_prompt":"blurred","noise":"counter","pure_noise_at_zero":false,"size":[480,270],"keep_aspect":false,"area":null},"filter":{"sql":"kept/mine.sql","frame":"center_crop","min_text_similarity":0.0,"max_attempts":1},"validation":{"sources":5},"curriculum":{"strategy":"adaptive","epochs":3,"curriculum_epochs":0,"levels":[0,10,100],"non_hard_fraction":1.0,"hard_share":0.999,"synthetic_per_hard":null,"max_repeats":10,"level":10,"seed":-7,"trials":["a","b"],"probe_size":100,"exploration":0.0,"class_balanced":true,"manifest":"manifest/low_quality.sql"},"learner":{"architectures":["mlp","cnn"],"image_side":32,"batch_size":8,"iterations_per_epoch":4,"learning_rate":0.01,"weight_decay":0.0},"experiment":{"strategies":["adaptive","mine"],"losses":["cross_entropy"],"learner_seeds":3,"many_class_count":50,"worst_classes":5,"pretraining":"seen.parquet","splits":[{"seed":1,"set":["source.root=other"]},{"seed":2,"set":["source.root=third","seed=4"]}]},"rejects":{"max_fraction":0.0},"cuda":{"memory_limit_mib":null,"tf32":null,"fast":false},"queries":{"memory_limit_mib":512},"steps":[{"table":"blurred","sql":"steps/blurred.sql"},{"table":"dark","sql":"steps/dark.sql"}],"expect":[{"name":"no empty class","sql":"SELECT 1\nWHERE false"}],"parameters":{"count":3,"look":"dark","min_contrast":0.5,"strict":true}}"##);
}

#[test]
fn the_shipped_pipelines_parse() {
    let config = sound(include_str!("../../../pipelines/digits_low_quality.toml"), &[]);
    assert_eq!(config.curriculum.strategy, "adaptive");
    assert_eq!(config.source.splits.names.len(), 4);
    assert_eq!(config.experiment.splits.len(), 5);

    let config = sound(include_str!("../../../pipelines/digits_lt.toml"), &[]);
    assert_eq!(config.name, "digits_lt");
    assert_eq!(config.source.splits.names.len(), 3);
    assert_eq!(config.spectrum.image_guidance, [0, 10, 30, 50, 70, 90]);
    assert_eq!(config.curriculum.hard_share, Some(0.4));
    assert_eq!(config.expect.len(), 1);
}

#[test]
fn edits_override_the_file_and_earlier_edits() {
    let set = [
        "spectrum.seeds=[7]",
        "lake.root=/tmp/a lake=b",
        "source.splits.validation = 'v.parquet'",
        "spectrum.timesteps=5",
        "spectrum.timesteps = 6",
        "curriculum={epochs = 2, curriculum_epochs = 1}",
        "parameters.look=\"1\"",
    ];
    let config = sound(SMALL, &set);
    assert_eq!(config.spectrum.seeds, [7]);
    assert_eq!(config.lake_root, "/tmp/a lake=b");
    assert_eq!(config.source.splits.names[1], (Split::Validation, vec!["v.parquet".to_owned()]));
    assert_eq!(config.spectrum.timesteps, 6);
    assert_eq!(config.curriculum.epochs, 2);
    assert_eq!(config.parameters["look"], Parameter::Text("1".to_owned()));
}
