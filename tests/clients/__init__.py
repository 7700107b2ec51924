"""The real Claude Code and Codex, run offline against a scripted model server.

==================  ===========================================================================
``installation``    puts the pinned clients into ``<repo>/.clients``, once
``fake_model``      the scripted server both clients talk to; ``wire`` has the words of a script
``messages_api``    Claude's protocol, as ``fake_model`` needs it
``responses_api``   Codex's protocol, as ``fake_model`` needs it
``launch``          one command with its whole environment: run it, wrap it, print it for a shell
``claude``          ``Claude``: headless prompts and conversations
``codex``           ``Codex``: headless prompts
``tui``             both clients interactive, under a private tmux server
``builds``          builds that the model starts by its own shell
``gated``           a project with a stop gate that judges
``reaped``          clients in panes, and a reaper that looks at them
``peers``           clients that are peers, woken and parked
``waiting``         waiting for a condition, with a deadline
==================  ===========================================================================

``test_harness.py`` proves each of these on the real clients; it is also the place to look for examples.
"""
