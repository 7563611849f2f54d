"""DPS: fine-tuning pre-trained language models by optimizing subnetworks adaptively (NeurIPS 2022)."""
