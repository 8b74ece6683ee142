# SPDX-License-Identifier: Apache-2.0
"""A plain Linux IGVM file: kernel, initramfs and command line, all of them measured."""
