"""How accurate what serves still is: drift of what it sees and says, agreement with its parent, the contract"""
