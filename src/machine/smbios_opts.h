/*
 * What the SMBIOS tables say, from -smbios, -uuid, -name and the size of the machine.
 */
#ifndef MACHINE_SMBIOS_OPTS_H
#define MACHINE_SMBIOS_OPTS_H

#include "firmware/smbios.h"
#include "machine/config.h"

/* Fills all but the sizes of RAM. Texts are those of cfg, which has to outlive f; files that
 * path= names are read now. 0 or -errno with a sentence. smbios_facts_fini() in every case. */
int smbios_facts_init(struct smbios_facts *f, const struct vm_config *cfg, struct err *err);
void smbios_facts_fini(struct smbios_facts *f);

#endif
