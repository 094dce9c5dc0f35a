"""The tutorials' script, as their walkthrough writes it; main_job.py measures our main job against it.

Nothing is improved here, on purpose: same calls, same order, same plots. The only addition is the number of epochs as
an argument, 10 unless given: `MPLBACKEND=Agg python benchmarks/reference.py 3` (Agg, so that no window opens).
"""

import sys

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf  # noqa: F401  (they import it, too)
from tensorflow import keras  # pyright: ignore[reportMissingModuleSource]

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 10

# Load the Fashion MNIST dataset
fashion_mnist = keras.datasets.fashion_mnist
(train_images, train_labels), (test_images, test_labels) = fashion_mnist.load_data()

print(f"Training images shape: {train_images.shape}")  # (60000, 28, 28)
print(f"Training labels shape: {train_labels.shape}")  # (60000,)
print(f"Testing images shape: {test_images.shape}")  # (10000, 28, 28)
print(f"Testing labels shape: {test_labels.shape}")  # (10000,)

# fmt: off
class_names = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
               "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
# fmt: on

plt.figure(figsize=(10, 5))
for i in range(10):
    plt.subplot(2, 5, i + 1)
    plt.imshow(train_images[i], cmap="gray")
    plt.title(class_names[train_labels[i]])
    plt.axis("off")
plt.show()

train_images = train_images / 255.0
test_images = test_images / 255.0

model = keras.Sequential(
    [
        keras.layers.Flatten(input_shape=(28, 28)),  # Convert 28x28 into 1D array of 784 elements
        keras.layers.Dense(128, activation="relu"),  # Hidden layer with 128 neurons and ReLU activation
        keras.layers.Dense(10, activation="softmax"),  # Output layer with 10 neurons for 10 classes
    ]
)

model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])

model.fit(train_images, train_labels, epochs=epochs)

test_loss, test_acc = model.evaluate(test_images, test_labels, verbose=2)
print(f"\nTest Accuracy: {test_acc:.4f}")

predictions = model.predict(test_images)

# Print predicted label for first test image
print(f"Predicted label: {np.argmax(predictions[0])}")
print(f"Actual label: {test_labels[0]}")


def plot_image(i, predictions_array, true_label, img):
    """Shows one image; its label is blue where the prediction is right, and red where it is wrong."""
    true_label, img = true_label[i], img[i]
    plt.grid(False)
    plt.xticks([])
    plt.yticks([])

    plt.imshow(img, cmap="gray")

    predicted_label = np.argmax(predictions_array)
    if predicted_label == true_label:  # noqa: SIM108  (as they write it)
        color = "blue"
    else:
        color = "red"

    plt.xlabel(f"{class_names[predicted_label]} ({class_names[true_label]})", color=color)


# Plot first 10 test images with predictions
plt.figure(figsize=(10, 5))
for i in range(10):
    plt.subplot(2, 5, i + 1)
    plot_image(i, predictions[i], test_labels, test_images)
plt.show()
