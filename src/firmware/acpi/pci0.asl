            Name (_HID, EisaId ("PNP0A08"))
            Name (_CID, EisaId ("PNP0A03"))
            Name (_UID, 0x00)
            Name (_SEG, 0x00)
            Name (_BBN, 0x00)
            /* _CRS is in the SSDT. There is no _PRT: functions interrupt by message only. */

            /*
             * What the system may control itself: native hotplug (bit 0), PME (2), AER (3)
             * and the PCI Express capability (4). Not SHPC (1) nor LTR (5).
             */
            Name (OSCM, 0x1D)
            Method (_OSC, 4, Serialized)
            {
                CreateDWordField (Arg3, 0x00, CDW1)
                If ((Arg0 != ToUUID ("33db4d5b-1ff7-401c-9657-7441c03dd766")))
                {
                    CDW1 |= 0x04 /* unrecognized UUID */
                    Return (Arg3)
                }
                If ((Arg1 != 0x01) || (Arg2 < 0x03))
                {
                    CDW1 |= 0x08 /* unrecognized revision */
                    Return (Arg3)
                }
                CreateDWordField (Arg3, 0x08, CDW3)
                Local0 = (CDW3 & OSCM)
                If ((Local0 != CDW3))
                {
                    CDW1 |= 0x10 /* capabilities masked */
                    CDW3 = Local0
                }
                Return (Arg3)
            }
