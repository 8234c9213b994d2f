            Field (GREG, DWordAcc, NoLock, Preserve)
            {
                GSEL, 32 /* which events happened; reading clears it */
            }
            Method (_EVT, 1, Serialized)
            {
                Local0 = GSEL
                If ((Local0 & 0x10))
                {
                    Notify (PWRB, 0x80)
                }
            }
