"""The side of GAN-INT-CLS and Show, Attend and Tell: plain PyTorch models of the same layers, published width. Needs
torch, not us."""

import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent))
from serve import serve

NOISE, TEXT, PROJECTED = 100, 1024, 128
CAPTION, PLACES, CHANNELS, WORDS = 13, 196, 512, 10000
GPU = torch.cuda.is_available()


def now():
    """Seconds, once all that was asked of the device is done."""
    if GPU:
        torch.cuda.synchronize()
    return time.perf_counter()


def normalised(convolution, *activation):
    return convolution, nn.BatchNorm2d(convolution.out_channels), *activation


def conv(channels, filters, kernel, stride=1):
    return nn.Conv2d(channels, filters, kernel, stride, (kernel - 1) // 2, bias=False)


def up(channels, filters):
    return nn.ConvTranspose2d(channels, filters, 4, 2, 1, bias=False)


class Residual(nn.Module):
    def __init__(self, channels, between, activation):
        super().__init__()
        self.activation = activation
        self.body = nn.Sequential(
            *normalised(conv(channels, between, 1), activation),
            *normalised(conv(between, between, 3), activation),
            *normalised(conv(between, channels, 3)),
        )

    def forward(self, x):
        return self.activation(x + self.body(x))


class Generator(nn.Module):
    def __init__(self, g=128):
        super().__init__()
        self.project = nn.Sequential(nn.Linear(TEXT, PROJECTED), nn.LeakyReLU(0.2))
        first = nn.ConvTranspose2d(NOISE + PROJECTED, 8 * g, 4, bias=False)
        self.body = nn.Sequential(
            *normalised(first),
            Residual(8 * g, 2 * g, nn.ReLU()),
            *normalised(up(8 * g, 4 * g)),
            Residual(4 * g, g, nn.ReLU()),
            *normalised(up(4 * g, 2 * g), nn.ReLU()),
            *normalised(up(2 * g, g), nn.ReLU()),
            up(g, 3),
            nn.Tanh(),
        )

    def forward(self, noise, text):
        return self.body(torch.cat([noise, self.project(text)], 1)[:, :, None, None])


class Discriminator(nn.Module):
    def __init__(self, d=64):
        super().__init__()
        leaky = nn.LeakyReLU(0.2)
        self.trunk = nn.Sequential(
            conv(3, d, 4, 2),
            leaky,
            *normalised(conv(d, 2 * d, 4, 2), leaky),
            *normalised(conv(2 * d, 4 * d, 4, 2)),
            *normalised(conv(4 * d, 8 * d, 4, 2)),
            Residual(8 * d, 2 * d, leaky),
        )
        self.project = nn.Sequential(nn.Linear(TEXT, PROJECTED), nn.BatchNorm1d(PROJECTED), leaky)
        joint = conv(8 * d + PROJECTED, 8 * d, 1)
        self.head = nn.Sequential(*normalised(joint, leaky), nn.Conv2d(8 * d, 1, 4, bias=False))

    def forward(self, images, text):
        code = self.project(text)[:, :, None, None].expand(-1, -1, 4, 4)
        return self.head(torch.cat([self.trunk(images), code], 1)).flatten()


class GanIntCls:
    def __init__(self, rows):
        self.rows, self.generator, self.critic = rows, Generator(), Discriminator()
        self.updates = [
            torch.optim.Adam(network.parameters(), 2e-4, betas=(0.5, 0.999))
            for network in (self.generator, self.critic)
        ]
        self.one, self.zero = torch.ones(rows), torch.zeros(rows)

    def step(self):
        rows = self.rows
        real, wrong = (torch.rand(rows, 3, 64, 64) * 2 - 1 for _ in range(2))
        text, noise, other = torch.randn(rows, TEXT), torch.randn(rows, NOISE), torch.randn(rows * 3 // 2, NOISE)
        bce, (update, update_critic) = functional.binary_cross_entropy_with_logits, self.updates
        began = now()
        with torch.no_grad():
            fake = self.generator(noise, text)
        update_critic.zero_grad()
        mismatched = bce(self.critic(wrong, text), self.zero) + bce(self.critic(fake, text), self.zero)
        (bce(self.critic(real, text), self.one) + 0.5 * mismatched).backward()
        update_critic.step()
        texts = torch.cat([text, (text[: rows // 2] + text[rows // 2 :]) / 2])
        update.zero_grad()
        logits = self.critic(self.generator(other, texts), texts)
        (bce(logits[:rows], self.one) + bce(logits[rows:], self.one[: rows // 2])).backward()
        update.step()
        return now() - began

    def sample(self, count):
        self.generator.eval()
        noise, text = torch.randn(count, NOISE), torch.randn(count, TEXT)
        began = now()
        with torch.no_grad():
            self.generator(noise, text).cpu().numpy()
        took = now() - began
        self.generator.train()
        return took


class Decoder(nn.Module):
    def __init__(self, word_dim=512, state_dim=1800):
        super().__init__()
        self.words = nn.Embedding(WORDS, word_dim)
        self.hidden = nn.Linear(CHANNELS, CHANNELS)
        self.state, self.memory = nn.Linear(CHANNELS, state_dim), nn.Linear(CHANNELS, state_dim)
        self.cell = nn.LSTMCell(word_dim + CHANNELS, state_dim)
        self.projection = nn.Sequential(nn.Linear(CHANNELS, CHANNELS), nn.Linear(CHANNELS, CHANNELS), nn.Tanh())
        self.of_state, self.scorer = nn.Linear(state_dim, CHANNELS, bias=False), nn.Linear(CHANNELS, 1, bias=False)
        self.selector = nn.Linear(state_dim, 1)
        self.output_of_state, self.output_of_context = nn.Linear(state_dim, word_dim), nn.Linear(CHANNELS, word_dim)
        self.output, self.dropout = nn.Linear(word_dim, WORDS), nn.Dropout(0.5)

    def first(self, annotations):
        x = self.dropout(functional.relu(self.hidden(annotations.mean(1))))
        return torch.tanh(self.state(x)), torch.tanh(self.memory(x))

    def look(self, annotations, projected, state):
        scores = self.scorer(torch.tanh(projected + self.of_state(state)[:, None]))[:, :, 0]
        attention = torch.softmax(scores, 1)
        return attention, torch.sigmoid(self.selector(state)) * torch.einsum("bl,bld->bd", attention, annotations)

    def tell(self, words, states, contexts):
        x = self.output_of_state(self.dropout(states)) + words + self.output_of_context(contexts)
        return self.output(self.dropout(torch.tanh(x)))

    def forward(self, annotations, words):
        (state, memory), projected = self.first(annotations), self.projection(annotations)
        before = functional.pad(self.words(words[:, :-1]), (0, 0, 1, 0))
        rows = []
        for place in range(words.shape[1]):
            attention, context = self.look(annotations, projected, state)
            state, memory = self.cell(torch.cat([before[:, place], context], 1), (state, memory))
            rows.append((attention, context, state))
        attention, contexts, states = (torch.stack(row, 1) for row in zip(*rows, strict=True))
        return self.tell(before, states, contexts), attention


class Captioner:
    def __init__(self, rows):
        self.rows, self.decoder = rows, Decoder()
        self.update = torch.optim.Adam(self.decoder.parameters(), 2e-4)

    def step(self):
        annotations, words = torch.rand(self.rows, PLACES, CHANNELS), torch.randint(2, WORDS, (self.rows, CAPTION))
        words[:, -1] = 0
        began = now()
        self.update.zero_grad()
        logits, attention = self.decoder(annotations, words)
        loss = functional.cross_entropy(logits.flatten(0, 1), words.flatten(), reduction="sum") / self.rows
        (loss + 64 / 196 * ((1 - attention.sum(1)) ** 2).sum(1).mean()).backward()
        self.update.step()
        return now() - began


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_default_device("cuda" if GPU else "cpu")
    side = {"gan_int_cls": GanIntCls, "show_attend_tell": Captioner}[sys.argv[1]](int(sys.argv[2]))
    serve(side.step, getattr(side, "sample", None))
