"""The side of AttnGAN and StackGAN++ as their authors published them: their networks, losses and configuration are
imported from their code, with what PyTorch has since renamed; the order of a step is theirs. Needs torch, not us."""

import importlib.machinery
import importlib.util
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils import model_zoo

sys.path.insert(0, str(Path(__file__).parent))
from serve import serve

NOISE, SIZES, WORDS = 100, (64, 128, 256), 18
GPU = torch.cuda.is_available()
RENAMED = {".data[0]": ".item()", "torch.ByteTensor(masks)": "torch.from_numpy(masks).bool()"}


class Renaming(importlib.machinery.SourceFileLoader):
    """Loads their sources as today's PyTorch reads them."""

    def get_data(self, path):
        text = Path(path).read_text()
        for old, new in RENAMED.items():
            text = text.replace(old, new)
        return text.encode()

    def path_stats(self, path):
        raise OSError("no cached bytecode")


def of_theirs(code, name):
    path = str(Path(code, *name.split(".")).with_suffix(".py"))
    spec = importlib.util.spec_from_file_location(name, path, loader=Renaming(name, path))
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def configured(code):
    sys.path.insert(0, code)
    cfg = importlib.import_module("miscc.config").cfg
    cfg.CUDA, cfg.TREE.BRANCH_NUM = GPU, 3
    cfg.GAN.DF_DIM, cfg.GAN.R_NUM, cfg.GAN.Z_DIM = 64, 2, NOISE
    return cfg


def now():
    """Seconds, once all that was asked of the device is done."""
    if GPU:
        torch.cuda.synchronize()
    return time.perf_counter()


def optimizer(network):
    return torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999))


def drawn(network):
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.02)
    return network


class Gan:
    """Generator, three discriminators, their optimizers, and the moving average of the generator."""

    def __init__(self, model, rows):
        self.rows, self.generator = rows, drawn(model.G_NET())
        self.critics = [drawn(critic()) for critic in (model.D_NET64, model.D_NET128, model.D_NET256)]
        self.updates = [optimizer(critic) for critic in self.critics]
        self.update = optimizer(self.generator)
        self.average = [weight.data.clone() for weight in self.generator.parameters()]
        self.one, self.zero, self.bce = torch.ones(rows), torch.zeros(rows), nn.BCELoss()

    def pictures(self):
        return [torch.rand(self.rows, 3, size, size) * 2 - 1 for size in SIZES]

    def timed_step(self, *data):
        began = now()
        self.train(*data)
        with torch.no_grad():
            for weight, average in zip(self.generator.parameters(), self.average, strict=True):
                average.mul_(0.999).add_(weight, alpha=0.001)
        return now() - began

    def timed_sample(self, *given):
        self.generator.eval()
        began = now()
        with torch.no_grad():
            self.generator(*given)[0][-1].cpu().numpy()
        took = time.perf_counter() - began
        self.generator.train()
        return took


class StackGanV2(Gan):
    def __init__(self, code, rows):
        cfg = configured(code)
        cfg.GAN.B_CONDITION, cfg.TRAIN.COEFF.UNCOND_LOSS = True, 1.0
        super().__init__(of_theirs(code, "model"), rows)

    def train(self, real, wrong, noise, text):
        bce, one, zero = self.bce, self.one, self.zero
        fake, mu, logvar = self.generator(noise, text)
        condition = mu.detach()
        for critic, update, *shown in zip(self.critics, self.updates, real, wrong, fake, strict=True):
            critic.zero_grad()
            of_real, of_wrong, of_fake = (critic(images.detach(), condition) for images in shown)
            conditional = bce(of_real[0], one) + bce(of_wrong[0], zero) + bce(of_fake[0], zero)
            (conditional + bce(of_real[1], one) + bce(of_wrong[1], one) + bce(of_fake[1], zero)).backward()
            update.step()
        self.generator.zero_grad()
        loss = 2.0 * (-0.5 * (1 + logvar - mu.pow(2) - logvar.exp()).mean())
        for critic, images in zip(self.critics, fake, strict=True):
            logits = critic(images, mu)
            loss = loss + bce(logits[0], one) + bce(logits[1], one)
        loss.backward()
        self.update.step()

    def step(self):
        noise, text = torch.randn(self.rows, NOISE), torch.randn(self.rows, 1024)
        return self.timed_step(self.pictures(), self.pictures(), noise, text)

    def sample(self, count):
        return self.timed_sample(torch.randn(count, NOISE), torch.randn(count, 1024))


class AttnGan(Gan):
    def __init__(self, code, rows):
        cfg = configured(code)
        cfg.GAN.GF_DIM, cfg.TEXT.EMBEDDING_DIM, cfg.TRAIN.FLAG = 32, 256, True
        cfg.TRAIN.SMOOTH.update(GAMMA1=4.0, GAMMA2=5.0, GAMMA3=10.0, LAMBDA=5.0)
        model_zoo.load_url = lambda url: {}
        nn.Module.load_state_dict = lambda module, weights: None  # random weights are as fast
        model = of_theirs(code, "model")
        self.losses = of_theirs(code, "miscc.losses")
        super().__init__(model, rows)
        self.image_encoder, self.text_encoder = (
            model.CNN_ENCODER(256).eval(),
            model.RNN_ENCODER(5450, nhidden=256).eval(),
        )
        for network in (self.image_encoder, self.text_encoder):
            network.requires_grad_(False)
        self.lengths = torch.linspace(WORDS, WORDS // 2, rows).long()
        self.captions = torch.randint(1, 5450, (rows, WORDS)) * (torch.arange(WORDS) < self.lengths[:, None])

    def read(self):
        words, sentence = self.text_encoder(self.captions, self.lengths, self.text_encoder.init_hidden(self.rows))
        return words.detach(), sentence.detach(), self.captions == 0

    def train(self, real, noise):
        words, sentence, mask = self.read()
        fake, _, mu, logvar = self.generator(noise, sentence, words, mask)
        for critic, update, *shown in zip(self.critics, self.updates, real, fake, strict=True):
            critic.zero_grad()
            self.losses.discriminator_loss(critic, *shown, sentence, self.one, self.zero).backward()
            update.step()
        self.generator.zero_grad()
        places, classes = torch.arange(self.rows), np.arange(self.rows)
        loss, _ = self.losses.generator_loss(
            self.critics, self.image_encoder, fake, self.one, words, sentence, places, self.lengths, classes
        )
        (loss + self.losses.KL_loss(mu, logvar)).backward()
        self.update.step()

    def step(self):
        return self.timed_step(self.pictures(), torch.randn(self.rows, NOISE))

    def sample(self, count):
        words, sentence, mask = (x[:1].repeat(count, *[1] * (x.dim() - 1)) for x in self.read())
        return self.timed_sample(torch.randn(count, NOISE), sentence, words, mask)


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_default_device("cuda" if GPU else "cpu")
    side = {"attngan": AttnGan, "stackgan_v2": StackGanV2}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
    serve(side.step, side.sample)
