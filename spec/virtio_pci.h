/*
 * Virtual I/O Device (VIRTIO) Version 1.2, section 4.1: Virtio Over PCI Bus.
 */
#ifndef SPEC_VIRTIO_PCI_H
#define SPEC_VIRTIO_PCI_H

#include <stddef.h>

#include "base/wire.h"

#define VIRTIO_PCI_VENDOR_ID      0x1af4
#define VIRTIO_PCI_DEVICE_ID_BASE 0x1040 /* + device type [4.1.2] */

#define VIRTIO_PCI_CAP_ID_VNDR 0x09

/* cfg_type [4.1.4] */
#define VIRTIO_PCI_CAP_COMMON_CFG        1
#define VIRTIO_PCI_CAP_NOTIFY_CFG        2
#define VIRTIO_PCI_CAP_ISR_CFG           3
#define VIRTIO_PCI_CAP_DEVICE_CFG        4
#define VIRTIO_PCI_CAP_PCI_CFG           5
#define VIRTIO_PCI_CAP_SHARED_MEMORY_CFG 8
#define VIRTIO_PCI_CAP_VENDOR_CFG        9

struct virtio_pci_cap {
	uint8_t cap_vndr, cap_next, cap_len, cfg_type;
	uint8_t bar, id, padding[2];
	le32 offset, length;
};
struct virtio_pci_notify_cap {
	struct virtio_pci_cap cap;
	le32 notify_off_multiplier;
};
struct virtio_pci_cfg_cap {
	struct virtio_pci_cap cap;
	uint8_t pci_cfg_data[4];
};
_Static_assert(sizeof(struct virtio_pci_cap) == 16, "virtio_pci_cap");
_Static_assert(sizeof(struct virtio_pci_notify_cap) == 20, "virtio_pci_notify_cap");
_Static_assert(sizeof(struct virtio_pci_cfg_cap) == 20, "virtio_pci_cfg_cap");

/* Common configuration structure layout [4.1.4.3] */
struct virtio_pci_common_cfg {
	le32 device_feature_select;
	le32 device_feature;
	le32 driver_feature_select;
	le32 driver_feature;
	le16 config_msix_vector;
	le16 num_queues;
	uint8_t device_status;
	uint8_t config_generation;

	le16 queue_select;
	le16 queue_size;
	le16 queue_msix_vector;
	le16 queue_enable;
	le16 queue_notify_off;
	le64 queue_desc;
	le64 queue_driver;
	le64 queue_device;
	le16 queue_notify_data;
	le16 queue_reset;
};
_Static_assert(offsetof(struct virtio_pci_common_cfg, queue_desc) == 32, "queue_desc");
_Static_assert(sizeof(struct virtio_pci_common_cfg) == 60, "virtio_pci_common_cfg");

#define VIRTIO_MSI_NO_VECTOR 0xffff

/* ISR status [4.1.4.5] */
#define VIRTIO_PCI_ISR_QUEUE  1
#define VIRTIO_PCI_ISR_CONFIG 2

#endif
