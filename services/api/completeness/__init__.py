"""How complete the data is."""
